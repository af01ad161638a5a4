"""Parsers on what language models really wrote: 33,000 recorded completions (see the data sets'
README for where they come from).

The bounds are the figures of an independent parser: at most two points below its accuracy, and at
most two points above its share of unparsed text. Where ours abstains more (multiple choice), the
text names several choices at once, which is no answer.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean

import pytest

from qcrd_ray.recipe import Split, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Parsed
from qcrd_ray.tasks.questions import read_questions

DATA = os.environ.get("QCRD_DATASETS", "")
HERE = bool(DATA) and Path(DATA, "svamp").is_dir()
pytestmark = pytest.mark.skipif(
    not HERE, reason="QCRD_DATASETS names no folder of recorded completions"
)


def questions(kind: str, *files: str):
    task = build_task(TaskRecipe(kind=kind))
    read = [
        read_questions(
            Split(path=f"{DATA}/{f}"), task=task, columns={}, kind=kind, max_chars=20_000
        )
        for f in files
    ]
    assert not [
        rejected for _, several in read for rejected in several
    ]  # 146 rows of CQA repeat a choice, and are good questions
    return task, {q.id: q for several, _ in read for q in several}


def parsed(kind: str, recording: str, *files: str):
    """All (question, parsed completion) of a recording."""
    task, by_id = questions(kind, *files)
    with open(f"{DATA}/{recording}", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(by_id[row["id"]], task.parse(row["completion"], by_id[row["id"]])) for row in rows]


def majority_right(results) -> float:
    """The share of questions whose most frequent answer (the first of several) is gold."""
    votes, gold = defaultdict(list), {}
    for question, read in results:
        gold[question.id] = question.answer
        votes[question.id] += [read.answer] if read.answer is not None else []
    return sum(
        Counter(votes[id]).most_common(1)[0][0] == answer
        for id, answer in gold.items()
        if votes[id]
    ) / len(gold)


def rates(results) -> tuple[float, float]:
    """Shares of right and of unparsed completions."""
    right = sum(read.answer == question.answer for question, read in results) / len(results)
    unparsed = sum(read.answer is None for _, read in results) / len(results)
    return right, unparsed


@pytest.mark.parametrize(
    ("kind", "recording", "files", "right", "unparsed"),
    [
        ("arithmetic", "svamp/teacher.jsonl", ("svamp/train.jsonl",), 0.715, 0.002),
        (
            "multiple_choice",
            "cqa/teacher.jsonl",
            ("cqa/train.jsonl", "cqa/dev.jsonl"),
            0.762,
            0.018,
        ),
        ("multiple_choice", "cqa/teacher.five_models.jsonl", ("cqa/dev.jsonl",), 0.736, 0.007),
        (
            "nli",
            "esnli/teacher.jsonl",
            ("esnli/train.jsonl", "esnli/dev.jsonl", "esnli/test.jsonl"),
            0.712,
            0.011,
        ),
    ],
)
def test_recorded_completions(kind, recording, files, right, unparsed):
    results = parsed(kind, recording, *files)
    got_right, got_unparsed = rates(results)
    assert (
        right - 0.02 <= got_right <= right + 0.05
    )  # far above would mean that the rules favour gold; read by hand, SVAMP is at right + 0.06
    assert got_unparsed <= unparsed + 0.02
    if recording.startswith("svamp"):
        assert (
            majority_right(results) >= 0.885
        )  # the issue asks for 0.87; an independent parser reaches 0.886, a last-number rule 0.859
    if "five" in recording:
        assert majority_right(results) >= 0.784
    assert all(bool(read.answer is None) == bool(read.reason) for _, read in results)
    # Nothing of an invented question is left in a rationale.
    invented = re.compile(r"^(?:Q|Question|Premise|Hypothesis): |Answer Choices:", re.MULTILINE)
    assert not [read.rationale for _, read in results if invented.search(read.rationale)]


def test_gsm8k_solutions_parse_to_their_answers():
    """Without the `#### answer` line, from the last sentence alone; with it, all of them."""
    task, by_id = questions("arithmetic", "gsm8k/train.jsonl")
    alone = [task.parse(q.rationale, q).answer == q.answer for q in by_id.values()]
    assert sum(alone) / len(alone) >= 0.985
    for q in by_id.values():
        whole = task.parse(f"{q.rationale}\n#### {q.answer}", q)
        assert (
            whole.answer == q.answer
            and "<<" not in whole.rationale
            and "####" not in whole.rationale
        )
        assert (
            task.parse(task.explanation(whole.rationale, whole.answer, q), q) == whole
        )  # as the student's text is read


DRAWS = 5  # of which texts would be read otherwise
READ = json.loads((Path(__file__).parent / "read_by_hand.json").read_text(encoding="utf-8"))
SETS = {
    "svamp": ("arithmetic", "svamp/teacher.jsonl", ("svamp/train.jsonl",)),
    "cqa": ("multiple_choice", "cqa/teacher.jsonl", ("cqa/train.jsonl", "cqa/dev.jsonl")),
    "cqa5": ("multiple_choice", "cqa/teacher.five_models.jsonl", ("cqa/dev.jsonl",)),
    "esnli": (
        "nli",
        "esnli/teacher.jsonl",
        ("esnli/train.jsonl", "esnli/dev.jsonl", "esnli/test.jsonl"),
    ),
    "last_letters": ("short_text", "last_letters/teacher.jsonl", ("last_letters/train.jsonl",)),
}


@pytest.mark.parametrize(
    ("drawn", "single", "majority"),
    [
        # Texts without a fixed ending, many of which go on after their answer: of the 200 of
        # svamp_blind careful readers find 16 right, 1.9 points of all; counting all 504 that had
        # been read before, 2.2 (1.5 to 3.2).
        ("svamp", 0.03, 0.03),
        ("svamp_after", 0.015, 0.015),
        ("svamp_tuned", 0.03, 0.03),
        ("svamp_fresh", 0.03, 0.03),
        ("svamp_causes", 0.02, 0.02),
        ("svamp_parts", 0.035, 0.035),
        ("svamp_third", 0.02, 0.02),
        ("svamp_blind", 0.025, 0.025),
        ("cqa", 0.01, 0.01),
        ("cqa5", 0.01, 0.01),
        ("esnli", 0.01, 0.01),
        ("last_letters", 0.01, 0.01),
    ],
)
def test_a_careful_reader_reads_the_same(drawn, single, majority):
    """Guards a parser that takes a text's error for the model's: of completions on which parser and
    gold answer disagreed, some were read by hand. The share that say the gold answer after all is
    how far the measured accuracies are off.
    """
    kind, recording, files = SETS[drawn.split("_")[0] if drawn.startswith("svamp") else drawn]
    results = parsed(kind, recording, *files)
    kept = READ["sets"][drawn]
    assert len(results) == kept["completions"]
    gold_after_all = 0
    for line, id, says in kept["rows"]:
        question, _ = results[line]
        assert question.id == id
        gold_after_all += says == question.answer
    share = gold_after_all / len(kept["rows"])
    right = kept["right_when_drawn"] / kept["completions"]
    assert abs(right + (1 - right) * share - rates(results)[0]) <= single
    # For votes, as many of the disagreements become gold as the reader found, at random.
    now = (1 - right) * share - (rates(results)[0] - right)  # what is still misread, of all
    rate = max(0.0, now) / (1 - rates(results)[0])
    moved = []
    for seed in range(DRAWS):
        draw = random.Random(seed)
        mended = [
            (q, Parsed(answer=q.answer) if p.answer != q.answer and draw.random() < rate else p)
            for q, p in results
        ]
        moved.append(majority_right(mended) - majority_right(results))
    assert abs(mean(moved)) <= majority


def test_last_letters():
    results = parsed(*SETS["last_letters"][:2], *SETS["last_letters"][2])
    right, unread = rates(results)
    assert 0.76 <= right <= 0.81 and unread <= 0.04  # an independent parser: 0.78 and 0.04
