"""The top of the page: the main accuracies, and the recipe in a few lines."""

from __future__ import annotations

from pathlib import Path

from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import OpenAITeacher, Recipe, RecordedTeacher, Split
from qcrd_ray.report.axes import number
from qcrd_ray.report.html import Markup, facts, join, missing, model_name, section, tag
from qcrd_ray.report.measured import GREEDY, Measured
from qcrd_ray.report.rounds import Training
from qcrd_ray.runs.discriminator_quality import has_collapsed, quality_sentence
from qcrd_ray.runs.results import cost_text

_KINDS = {
    "word_problems": "arithmetic word problems that the task makes itself",
    "arithmetic": "arithmetic word problems",
    "slotted_arithmetic": "arithmetic word problems, with slots for the numbers",
    "multiple_choice": "multiple choice",
    "nli": "natural language inference",
    "short_text": "short answers in free words",
}


def tiles(measured: Measured | None) -> Markup:
    """The accuracies that the run is about, on the first split that was measured."""
    if measured is None:
        return missing("Nothing has been measured on the test splits yet: `qcrd evaluate` does it.")
    split = "test" if "test" in measured.splits else measured.splits[0]
    names = ("student", *measured.baselines, "student base", "teacher, voted")
    heads = {name: [head for head in measured.heads(name) if head in GREEDY] for name in names}
    heads["teacher, voted"] = measured.heads("teacher, voted")
    if measured.judged_vote:
        heads["student"].append(measured.judged_vote)
    shown = [(name, head) for name in names for head in reversed(heads[name])]
    rows = [row for name, head in shown if (row := measured.row(name, head, split))]
    items = [
        tag(
            "li",
            tag("strong", f"{100 * row['accuracy']:.1f} %"),
            tag("span", model_name(row["name"], row["head"])),
            tag(
                "span",
                f"{row['correct']} of {row['total']}; 95 % interval {100 * row['low']:.1f} to"
                f" {100 * row['high']:.1f}",
            ),
            tag("span", f"{tokens} tokens a question")
            if (tokens := cost_text(row.get("tokens")))
            else None,
        )
        for row in rows
    ]
    return join(
        tag("p", f"Right answers on the split {split}:", class_="muted"),
        tag("ul", *items, class_="tiles"),
    )


def discriminator_quality(training: Training | None) -> Markup | None:
    """A sentence on what the finished training's discriminator is worth; None: not probed."""
    result = training.result if training else None
    fresh = result.get("discriminator", {}) if result else {}
    sentence = quality_sentence(fresh)
    if not sentence:
        return None
    return missing(sentence) if has_collapsed(fresh) else tag("p", sentence)


def overview(recipe: Recipe) -> Markup:
    """The recipe in a few lines."""
    sampling, train, objective = recipe.sampling, recipe.train, recipe.objective
    pairs = [
        ("task", f"{recipe.task.kind}: {_KINDS.get(recipe.task.kind, 'own task')}"),
        *(
            (f"questions, {name}", _source(split))
            for name, split in recipe.data
            if isinstance(split, Split)
        ),
        ("teacher", _teacher(recipe)),
        (
            "samples",
            (
                f"K = {sampling.k} a question at temperature T = {sampling.temperature:g}, at most"
                f" {sampling.max_tokens} tokens"
                + ("; fewer where the vote is settled" if sampling.adaptive else "")
            ),
        ),
        ("student", _student(recipe)),
        ("objective", _objective(recipe)),
        (
            "beside it",
            ", ".join(name for name in recipe.evaluate.baselines if name != objective.name)
            or "no baseline",
        ),
        (
            "training",
            (
                f"{train.rounds} rounds of {train.round.size} {train.round.unit},"
                f" {train.batch_size} questions a step, {train.workers} workers"
            ),
        ),
        (
            "labels",
            (
                "the questions' own answers"
                if objective.labels == "gold"
                else "the teacher's voted answers"
            ),
        ),
    ]
    return section("asked", "The recipe in brief", facts(pairs))


def _teacher(recipe: Recipe) -> str:
    teacher = recipe.teacher
    if isinstance(teacher, RecordedTeacher):
        return f"a recording: {Path(teacher.path).name}"
    if isinstance(teacher, OpenAITeacher):
        return f"{teacher.model} at {teacher.base_url}"
    return f"{teacher.model}, served by vLLM on {teacher.accelerator}"


def _student(recipe: Recipe) -> str:
    student = recipe.student
    start = student.model
    if start is None:
        assert student.scratch is not None, "the recipe has exactly one of model and scratch"
        start = f"a random {student.scratch.kind} (student.scratch)"
    return (
        f"{start}; reads {number(student.max_input_tokens)} tokens, writes"
        f" {number(student.max_target_tokens)}"
    )


def _objective(recipe: Recipe) -> str:
    objective, negatives = recipe.objective, recipe.negatives
    if not OBJECTIVES[objective.name].uses_negatives:
        return objective.name
    numbers = f"alpha_pred {objective.alpha_pred:g}, alpha_cl {objective.alpha_cl:g}"
    if objective.name == "qcrd":
        numbers += f", beta {objective.beta:g}, delta {objective.delta:g}"
    sources = [
        name
        for name, used in (
            ("the teacher's minority", negatives.teacher),
            (f"snapshots of the student (lag {recipe.lag})", negatives.student),
            ("positives with a wrong step", negatives.corrupted),
            ("positives for other numbers", negatives.evolved),
        )
        if used
    ]
    return f"{objective.name} ({numbers}); negatives from {' and '.join(sources) or 'nowhere'}"


def _source(split: Split) -> str:
    if split.generate is not None:
        return f"{number(split.generate)} generated ({split.kind or 'seen'}), seed {split.seed}"
    rows = f", rows {split.rows[0]} to {split.rows[1]}" if split.rows else ""
    return f"{split.origin}{rows}"
