"""The summary that a finished run prints.

Accuracies, one answered question, where the files lie, and how to serve the student.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from qcrd_ray.data.records import Question
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.report.rationales import asked_text
from qcrd_ray.report.reading import read_summary
from qcrd_ray.runs.discriminator_quality import quality_sentence
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.invocation import command, typed
from qcrd_ray.runs.judged_votes import (
    is_no_judge,
    judge_sentence,
    judged_votes,
    vote_sentence,
)
from qcrd_ray.runs.manifests import truncation_counts
from qcrd_ray.runs.progress import format_duration
from qcrd_ray.runs.results import Results, ceiling_notes, render_table
from qcrd_ray.serving.messages import PredictResponse

# a file or a pipe has no width of its own, and a table broken to 80 cannot be read
_LOG_COLUMNS = 120
# Results go to standard output, the progress line to standard error.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _LOG_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run ends with.

    ``results`` are the measured accuracies, ``answer`` is the served student's answer to
    ``question``, and ``seconds`` are those of each stage.
    """

    folder: RunFolder
    results: Results
    question: Question
    answer: PredictResponse
    seconds: dict[str, float]


def show(result: RunResult) -> None:
    """Print all of it to standard output, as plain text where that is no terminal."""
    folder, seconds = result.folder, result.seconds
    show_table(result.results)
    _print(data_lines(folder))
    _print(discriminator_lines(folder))
    out.print()
    _print(answer_lines(result.question, result.answer))
    out.print()
    mirror = f"{folder.mirror.name}, worked on in " if folder.mirror else ""
    _print([f"the run folder, {mirror}{folder.root}:"])
    _print(f"  {name:<36} {size_text(size):>10}" for name, size in folder.listing())
    out.print()
    times = ", ".join(f"{name} {format_duration(each)}" for name, each in seconds.items())
    _print([f"time: {times}; {format_duration(sum(seconds.values()))} in all"])
    _print([f"the report:\n  {link(folder.report)}"])
    _print([f"serve the student:\n  {command('serve', folder.student)}"])


def show_table(results: Results) -> None:
    """Print the accuracies, with what must be known to read them."""
    out.print(render_table(results["rows"]))
    _print(f"  {note}" for note in [*ceiling_notes(results["rows"]), *results["notes"]])
    _print(vote_lines(results))


def show_reading(recipe: Recipe, folder: RunFolder) -> None:
    """Print what was read from the training questions' samples, and how many were asked."""
    _print(read_summary(folder, "train").lines())
    _print(asked_lines(recipe, folder))


def asked_lines(recipe: Recipe, folder: RunFolder) -> list[str]:
    """How many samples adaptive sampling asked for the training questions; [] without it."""
    manifest = json.loads(RationaleStore(folder.rationales("train")).manifest.read_text())
    asked, saved = manifest["samples_asked"], manifest["samples_saved"]
    text = asked_text(recipe, asked, (asked + saved) // recipe.sampling.k)
    return [text] if text else []


def link(file: Path) -> str:
    """A file as a link that a terminal opens; as a path where the output is no terminal."""
    return file.as_uri() if out.is_terminal else typed(file)


def data_lines(folder: RunFolder) -> list[str]:
    """What was trained on, and how much of it was cut."""
    manifest = json.loads((folder.root / "train" / "data" / "manifest.json").read_text())
    cut = truncation_counts(manifest)
    cuts = ", ".join(f"{count:,} of {total:,} {name}" for name, (count, total) in cut.items())
    rationales = (
        f"{manifest['positives']:,} positives, {manifest['negatives']:,} negatives of the teacher"
    )
    questions = f"{manifest['questions']:,} questions"
    return [f"  trained on {questions}, {rationales}; cut for their length: {cuts}"]


def vote_lines(results: Results) -> list[str]:
    """The student's judged vote beside its greedy answer, and its judge; [] without one.

    The notes of the results say of a judge that it does not judge.
    """
    found = judged_votes(results)
    return [f"  {vote_sentence(each)}" for each in found] + [
        f"  {judge_sentence(each.quality, split=each.split)}"
        for each in found
        if not is_no_judge(each.quality)
    ]


def discriminator_lines(folder: RunFolder) -> list[str]:
    """What its discriminator is worth on held-out questions; []: without one, or not probed."""
    objective = load_recipe(folder.recipe).objective.name
    result = json.loads((folder.training(objective) / "result.json").read_text())
    sentence = quality_sentence(result.get("discriminator", {}))
    return [f"  {sentence}"] if sentence else []


def answer_lines(question: Question, answer: PredictResponse) -> list[str]:
    """The question that the served student was asked, and its answer."""
    quality = answer.quality
    lines = [
        f"question   {question.question}",
        f"label      {answer.label} (gold: {question.answer})",
        f"rationale  {answer.rationale}",
        f"quality    {'no discriminator in this student' if quality is None else f'{quality:.2f}'}",
    ]
    if answer.samples:
        sure = "" if answer.confidence is None else f", confidence {answer.confidence:.2f}"
        lines.append(
            f"vote       {answer.vote} ({answer.vote_kind}, of {len(answer.samples)} samples{sure})"
        )
    return lines


def size_text(size: float) -> str:
    """2048 -> "2.0 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(line, markup=False)
