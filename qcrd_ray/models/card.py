"""The model card of a student folder: usage, results, data, settings and limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcrd_ray import __version__
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe, RecordedTeacher, Split, StudentRecipe
from qcrd_ray.runs.discriminator_quality import quality_sentence
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.judged_votes import EVIDENCE, is_no_judge, judge_sentence, judged_votes
from qcrd_ray.runs.results import COSTS, Results, ceiling_notes, cost_text, markdown_table

USE = {
    "encoder-decoder": (
        """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained("."{trust})
question = {question}
for prefix in ({predict!r}, {explain!r}):  # the label alone, or the reasoning that ends in it
    tokens = tokenizer(prefix + question, return_tensors="pt")
    print(tokenizer.decode(model.generate(**tokens)[0], skip_special_tokens=True))"""
    ),
    "decoder-only": (
        """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained("."{trust})
question = {question}
for prefix in ({predict!r}, {explain!r}):  # the label alone, or the reasoning that ends in it
    message = [{{"role": "user", "content": prefix + question}}]
    tokens = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    generated = model.generate(**tokens)[0, tokens["input_ids"].shape[1] :]
    print(tokenizer.decode(generated, skip_special_tokens=True))"""
    ),
}

CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
tags: [rationale-distillation, qcrd]
---

# {name}

A small {architecture} model that answers questions of one kind ({kind}). It was distilled from a
larger model's rationales by qcrd_ray {version} with the objective `{objective}`{paper}.

## How to use it

Nothing but transformers is needed.{custom_code} In this folder:

```python
{use}
```

The answer in an explanation follows the phrase `{closing}`. `task.json` says how questions are
written and answers are read.{serve}{module}{discriminator}

## Results

Share of right answers in percent, with Wilson's 95 % interval. What cannot be read as an answer
counts as wrong. The checkpoint was chosen on the validation split; the test splits were used for
nothing but this table.

{table}
{notes}{judge}
## Data

{data}

## Settings

| setting | value |
| --- | --- |
{settings}

## Limits

- It has learnt one kind of question. On any other it will answer all the same, and be wrong.
- Its reasoning may be wrong where its answer is right, and the other way round: the table measures
  answers alone.
- It inherits what its teacher got wrong or preferred; the vote removes only what the teacher itself
  disagreed about.
- Inputs beyond {max_input_tokens} tokens are cut, answers end after {max_target_tokens}.

## Licence

This card grants none. The weights derive from the student's base, from the teacher's texts and from
the training questions: the licences and terms of use of all three apply.
"""


def render_card(
    recipe: Recipe,
    folder: RunFolder,
    *,
    results: Results,
    task: Mapping[str, Any],
    discriminator: bool,
) -> str:
    """The card in Markdown. ``results`` are the evaluation's, ``task`` the content of task.json."""
    notes = "".join(
        f"\nNote: {note}.\n" for note in [*ceiling_notes(results["rows"]), *results["notes"]]
    )
    module, custom, _ = recipe.task.kind.partition(":")
    code = task["custom_code"]
    result = json.loads((folder.student_training(recipe) / "result.json").read_text())
    quality = quality_sentence(result.get("discriminator", {}))
    quality = f" {quality}" if quality else ""
    return CARD.format(
        name=recipe.name,
        kind=recipe.task.kind,
        architecture=task["architecture"],
        pipeline=(
            "text2text-generation"
            if task["architecture"] == "encoder-decoder"
            else "text-generation"
        ),
        version=__version__,
        objective=recipe.objective.name,
        paper=(
            " (Quality-guided Contrastive Rationale Distillation, arXiv 2405.13014)"
            if recipe.objective.name == "qcrd"
            else ""
        ),
        use=usage(task),
        custom_code=(
            f" The model has code of its own ({', '.join(f'`{file}`' for file in code)}): read it"
            " before you trust it."
            if code
            else ""
        ),
        serve="" if code else " `qcrd serve` on this folder serves it over HTTP.",
        closing=recipe.task.closing,
        module=(
            f" Its kind of question is defined by the module `{module}`, which serving needs."
            if custom
            else ""
        ),
        discriminator=(
            f" `discriminator/` holds the model that scored rationales in training.{quality}"
            if discriminator
            else ""
        ),
        table=markdown_table(results["rows"]),
        notes=notes,
        judge=_judge(recipe, results),
        data=_data(recipe, folder),
        settings="\n".join(
            f"| {name} | {value} |" for name, value in _settings(recipe, result).items()
        ),
        max_input_tokens=recipe.student.max_input_tokens,
        max_target_tokens=recipe.student.max_target_tokens,
    )


JUDGE = """
## The judged vote

The student can answer by a vote: {samples} rationales are sampled at temperature {temperature:g},
and each votes for its answer with a weight from a judge, which reads {inputs}. The judge learnt
from {source}. The vote's share of the weights is calibrated to a confidence.

{table}

Tokens are generated ones of a question, milliseconds its share of a batch on the machine that
measured them; a vote also reads its samples a second time, which its milliseconds have in them.
`AUC`: the chance that the judge scores a right sample above a wrong one of the same question, on
questions that neither it nor the student has seen; 0.5 is a coin. `calibration error`: how far
confidences lie from the shares that are right, on average.{verdicts}
"""


def _judge(recipe: Recipe, results: Results) -> str:
    """The section on the judged vote; "" where none was measured."""
    found = judged_votes(results)
    if not found:
        return ""
    head = (
        "questions",
        "greedy, %",
        f"{found[0].vote['head']}, %",
        "tokens, greedy",
        "tokens, vote",
        "ms, greedy",
        "ms, vote",
        "AUC",
        "calibration error",
    )
    rows = [
        (
            each.split,
            *(f"{100 * row['accuracy']:.1f}" for row in (each.greedy, each.vote)),
            *(
                cost_text(row.get(key))
                for key in COSTS.values()
                for row in (each.greedy, each.vote)
            ),
            *(
                "" if value is None else f"{value:.2f}"
                for value in (
                    each.quality["auc_within_question"],
                    each.quality["calibration_error"],
                )
            ),
        )
        for each in found
    ]
    rule = ["---"] + ["---:"] * (len(head) - 1)
    judge = recipe.judge
    return JUDGE.format(
        samples=judge.samples,
        temperature=judge.temperature,
        inputs=", ".join(EVIDENCE[each] for each in judge.inputs),
        source=(
            f"{100 * judge.share:g} % of the training questions, kept from the student"
            if judge.share
            else "the validation questions, which chose the checkpoint and taught the student"
            " nothing"
        ),
        table="\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)),
        verdicts="".join(
            f"\n\n{judge_sentence(each.quality, split=each.split)}"
            for each in found
            if is_no_judge(each.quality)
        ),
    )


def usage(task: Mapping[str, Any]) -> str:
    """The lines of Python that ask a student the example question of its task.json."""
    return USE[task["architecture"]].format(
        trust=", trust_remote_code=True" if task["custom_code"] else "",
        question=repr(task["example"]["input"]),
        predict=task["predict_prefix"],
        explain=task["explain_prefix"],
    )


def _data(recipe: Recipe, folder: RunFolder) -> str:
    lines = [
        f"- {name}: {_source(split, recipe.task.kind)}"
        for name, split in recipe.data
        if isinstance(split, Split)
    ]
    manifest = folder.rationales("train") / "manifest.json"
    if manifest.exists():
        counts = json.loads(manifest.read_text())
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts["outcomes"].items())
        roles = ", ".join(f"{count} {role}" for role, count in counts["roles"].items())
        lines.append(
            f"- rationales: {counts['rows']} training questions ended as {outcomes}; their samples"
            f" as {roles}"
        )
    return "\n".join(lines)


def _source(split: Split, kind: str) -> str:
    """Where a split is from, without the folders of the machine that it was read on."""
    if split.origin is None:
        return (
            f"{split.generate} generated {kind} questions (kind {split.kind or 'seen'}, seed"
            f" {split.seed})"
        )
    rows = f", rows {split.rows[0]} to {split.rows[1]}" if split.rows else ""
    return f"`{split.origin}`{rows}" + (
        f", shuffled with seed {split.shuffle}" if split.shuffle is not None else ""
    )


def _settings(recipe: Recipe, result: Mapping[str, Any]) -> dict[str, object]:
    train, objective, negatives = recipe.train, recipe.objective, recipe.negatives
    teacher = (
        "a recording"
        if isinstance(recipe.teacher, RecordedTeacher)
        else _model(recipe.teacher.model)
    )
    settings: dict[str, object] = {
        "teacher": (
            f"{teacher}, {'at most ' if recipe.sampling.adaptive else ''}{recipe.sampling.k}"
            " samples a question at temperature"
            f" {recipe.sampling.temperature:g}"
        ),
        "student base": _base(recipe.student),
        "weights trained": (
            f"adapters of rank {recipe.student.lora.rank}, merged" if recipe.student.lora else "all"
        ),
        "labels": objective.labels,
        "rounds": f"{train.rounds} of {train.round.size} {train.round.unit}",
        "batch size, learning rate": (
            f"{train.batch_size}, {train.learning_rate:g} ({train.schedule})"
        ),
        "precision, seed": f"{train.precision}, {recipe.seed}",
    }
    if objective.name == "qcrd":
        settings["alpha_pred, alpha_cl, beta, delta"] = ", ".join(
            f"{value:g}"
            for value in (objective.alpha_pred, objective.alpha_cl, objective.beta, objective.delta)
        )
        settings["selection, weights"] = f"{objective.selection}, {objective.weights}"
    if OBJECTIVES[objective.name].uses_negatives:
        settings["student negatives"] = (
            f"lag {recipe.lag} rounds, temperature {negatives.temperature:g}"
            if negatives.student
            else "none"
        )
        if negatives.corrupted or negatives.evolved:
            settings["negatives made of positives, a question"] = (
                f"{negatives.corrupted} corrupted, {negatives.evolved} evolved"
            )
    settings["checkpoint"] = (
        f"round {result['best_round']} of {result['rounds']}, the best on validation by"
        f" {result['chosen_by']}"
    )
    return settings


def _base(student: StudentRecipe) -> str:
    if student.model:
        return _model(student.model)
    assert student.scratch is not None, "the recipe has one of the two"
    return f"a random {student.scratch.kind} (`student.scratch`)"


def _model(name: str) -> str:
    """A hub id, or the last part of a folder's path."""
    return (
        f"`{Path(name).name if Path(name).is_absolute() or name.startswith(('.', '~')) else name}`"
    )
