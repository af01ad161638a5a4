"""From voted rationales to the training set: one tokenized, memory-mapped Arrow file.

    data/train.arrow     a row per question (PREPARED_SCHEMA), in the order of question ids
    data/judge.parquet   questions that are kept from the student for the judge, if there are any
    data/dropped.jsonl   the questions that are not trained on, each with its reason
    data/manifest.json   a TrainingSetManifest: counts, also of what was cut and left out

All objectives read the same file: the baselines see the same questions.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from qcrd_ray.data.records import QUESTION_SCHEMA, Outcome, Question, Role
from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.tokenization import tokenize, tokenize_inputs
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.run.manifests import TrainingSetManifest
from qcrd_ray.tasks.base import EXPLAIN, PREDICT, Task

_IDS = pa.list_(pa.int32())

PREPARED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # the user's question id
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("input", pa.string()),  # as the student reads it, without a prefix
        ("answer", pa.string()),  # the canonical label; null: none
        ("predict", _IDS),
        ("explain", _IDS),
        ("label", _IDS),  # empty: no label
        ("positives", pa.list_(pa.string())),  # targets of the `explain:` head; each text once
        ("positive_ids", pa.list_(_IDS)),
        ("negatives", pa.list_(pa.string())),  # the teacher's minority
        ("negative_ids", pa.list_(_IDS)),
        # the first sample that could be read, right or wrong, voted on or not; empty: none
        ("first", _IDS),
        # the same reasoning closed by the label; empty: there is no label, or no such sample
        ("single", _IDS),
    ]
)

_ROWS_PER_BATCH = 1_000
_PARTS = 10**6  # how finely a share of the questions is drawn

JUDGE_QUESTIONS = "judge.parquet"
FOR_JUDGE = "kept for the judge (judge.share)"


def target_texts(table: pa.Table, task: Task) -> Iterator[str]:
    """The texts that a new tokenizer is trained on: inputs with prefixes, labels, explanations."""
    for row in _rows(table):
        question = Question.from_row(row)
        yield from (prefix + task.student_input(question) for prefix in (PREDICT, EXPLAIN))
        answers = (c["answer"] for c in row["completions"])
        yield from (task.label(answer, question) for answer in answers if answer is not None)
        yield from _explanations(row, Role.POSITIVE, task)


def prepare(
    recipe: Recipe, table: pa.Table, folder: Path, *, task: Task, tokenizer: PreTrainedTokenizerBase
) -> TrainingSetManifest:
    """Write the training set of ``table`` (RATIONALE_SET_SCHEMA) to ``folder``.

    One that was made of the same rows is kept. Returns the manifest.

    Raises:
        UserError: no question is left to train on, or the rationales or gold answers have changed
            since a training on them began.
    """
    manifest_path, source = folder / "manifest.json", _digest(table)
    if manifest_path.exists():
        manifest = json.loads(manifest_path.read_text())
        if manifest["source"] == source:
            return manifest
        if any(folder.parent.glob("*/checkpoints/*/")) or any(folder.parent.glob("*/result.json")):
            raise UserError(
                f"the rationales or gold answers have changed since training in {folder.parent}"
                " began: it would go on with other data than it started with. Delete"
                f" {folder.parent} to train on the new ones from the start."
            )
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    dropped: list[dict[str, str]] = []
    apart: list[dict[str, Any]] = []
    writing = folder / ".train.arrow.writing"
    with pa.OSFile(str(writing), "wb") as sink, pa.ipc.new_stream(sink, PREPARED_SCHEMA) as writer:
        for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
            kept = []
            for row in batch.to_pylist():
                if question := _for_judge(row, recipe):
                    apart.append(question)
                    dropped.append({"question_id": row["question_id"], "reason": FOR_JUDGE})
                    continue
                prepared, reason = _select(row, task, recipe)
                if prepared is None:
                    dropped.append({"question_id": row["question_id"], "reason": reason})
                else:
                    kept.append(prepared)
            _tokenize(kept, tokenizer, task, recipe, counts)
            writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=PREPARED_SCHEMA))
    if not counts["questions"]:
        raise UserError(_nothing_left(recipe, table, dropped))
    writing.rename(folder / "train.arrow")
    if apart:
        write_table(pa.Table.from_pylist(apart, schema=QUESTION_SCHEMA), folder / JUDGE_QUESTIONS)
    write_text(
        folder / "dropped.jsonl",
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dropped),
    )
    facts = {
        "source": source,
        "rows": table.num_rows,
        **counts,
        "dropped": dict(Counter(row["reason"] for row in dropped)),
    }
    manifest = cast(TrainingSetManifest, facts)  # `counts` holds the other fields
    write_text(manifest_path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def _for_judge(row: dict[str, Any], recipe: Recipe) -> dict[str, Any] | None:
    """The question of a row that `judge.share` keeps for the judge, if its answer is known.

    The share depends on the question's id and the recipe's seed alone.
    """
    judge = recipe.judge
    if not judge.samples or not judge.share or row["outcome"] == Outcome.REJECTED_INPUT:
        return None
    answer = row["gold"] if judge.labels == "gold" else row["vote"]
    drawn = keyed_seed(recipe.seed, "judge", row["question_id"]) % _PARTS
    if answer is None or drawn >= judge.share * _PARTS:
        return None
    return {
        "id": row["question_id"],
        "question": row["question"],
        "choices": row["choices"],
        "answer": answer,
        "rationale": None,
    }


def _select(row: dict[str, Any], task: Task, recipe: Recipe) -> tuple[dict[str, Any] | None, str]:
    """The texts of one question, or None and the reason why it cannot be trained on."""
    if row["outcome"] == Outcome.REJECTED_INPUT:
        return None, f"rejected: {row['reason']}"
    question, labels = Question.from_row(row), recipe.objective.labels
    label = row["gold"] if labels == "gold" else row["vote"]
    answer = task.canonical(label, question) if label is not None else None
    if recipe.objective.positives == "label" and answer is not None:
        row = row | {"completions": [c | {"role": _role(c, answer)} for c in row["completions"]]}
    positives = list(dict.fromkeys(_explanations(row, Role.POSITIVE, task)))
    negatives = (
        list(dict.fromkeys(_explanations(row, Role.NEGATIVE, task)))
        if recipe.negatives.teacher
        else []
    )
    if answer is None and not positives:
        why = f"no {labels} answer" if label is None else f"the {labels} answer cannot be read"
        return None, f"{why} and no voted rationale"
    return {
        "id": row["question_id"],
        "question": row["question"],
        "choices": row["choices"],
        "input": task.student_input(question),
        "answer": answer,
        "positives": positives,
        "negatives": negatives,
        **_first(row, answer, task, question),
    }, ""


def _role(completion: dict[str, Any], answer: str) -> Role:
    """The role of a completion where the label takes the place of the vote.

    One that could not vote (its `reason` says why) abstains here too.
    """
    if completion["answer"] is None or completion["reason"]:
        return Role.ABSTAINED
    return Role.POSITIVE if completion["answer"] == answer else Role.NEGATIVE


def _first(
    row: dict[str, Any], answer: str | None, task: Task, question: Question
) -> dict[str, str | None]:
    """The targets of the methods that take the first readable sample.

    "first" is closed by the sample's own answer, "single" by the label.
    """
    completion = next(filter(_readable, row["completions"]), None)
    if completion is None:
        return {"first": None, "single": None}
    rationale = completion["rationale"]
    return {
        "first": task.explanation(rationale, completion["answer"], question),
        "single": None if answer is None else task.explanation(rationale, answer, question),
    }


def _tokenize(
    rows: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    recipe: Recipe,
    counts: Counter[str],
) -> None:
    """Add the token columns to ``rows``, and what was cut to ``counts``."""

    def ids(texts: list[str], limit: int, name: str) -> list[list[int]]:
        tokenized = (tokenize_inputs if name == "inputs" else tokenize)(
            tokenizer, texts, max_tokens=limit
        )
        counts[f"truncated_{name}"] += tokenized.truncated
        return [list(row) for row in tokenized.rows]

    inputs, targets = recipe.student.max_input_tokens, recipe.student.max_target_tokens
    for column, prefix in (("predict", PREDICT), ("explain", EXPLAIN)):
        for row, tokens in zip(
            rows, ids([prefix + row["input"] for row in rows], inputs, "inputs"), strict=True
        ):
            row[column] = tokens
    labelled = [row for row in rows if row["answer"] is not None]
    for row in rows:
        row["label"] = []
    for row, tokens in zip(
        labelled,
        ids(
            [task.label(row["answer"], Question.from_row(row)) for row in labelled],
            targets,
            "labels",
        ),
        strict=True,
    ):
        row["label"] = tokens
    others = [text for row in rows for text in _others(row)]
    counts["others"] += len(others)
    counts["truncated_others"] += tokenize(tokenizer, others, max_tokens=targets).truncated
    for column in ("first", "single"):
        texts = [row[column] for row in rows if row[column] is not None]
        flat = iter(ids(texts, targets, column))
        for row in rows:
            row[column] = [] if row[column] is None else next(flat)
        counts[f"with_{column}"] += len(texts)
    counts["longest_label"] = max(
        [counts["longest_label"], *(len(row["label"]) for row in labelled)]
    )
    for side, column in (("positives", "positive_ids"), ("negatives", "negative_ids")):
        flat = iter(ids([text for row in rows for text in row[side]], targets, side))
        for row in rows:
            row[column] = [next(flat) for _ in row[side]]
            counts[side] += len(row[side])
    counts["questions"] += len(rows)
    counts["labelled"] += len(labelled)
    counts["with_positives"] += sum(bool(row["positives"]) for row in rows)
    counts["with_teacher_negatives"] += sum(bool(row["negatives"]) for row in rows)


def _others(row: dict[str, Any]) -> set[str]:
    """The targets of a question, each once, that are neither positives nor negatives."""
    return {row["first"], row["single"]} - {None, *row["positives"], *row["negatives"]}


def _explanations(row: dict[str, Any], role: Role, task: Task) -> list[str]:
    """The targets of a question's completions of one role."""
    question = Question.from_row(row)
    return [
        task.explanation(c["rationale"], c["answer"], question)
        for c in row["completions"]
        if c["role"] == role and _readable(c)
    ]


def _readable(completion: dict[str, Any]) -> bool:
    """Whether a completion gives a target: a rationale without a word teaches nothing."""
    return bool(completion["rationale"].strip()) and completion["answer"] is not None


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS_PER_BATCH):
        yield from batch.to_pylist()


def _digest(table: pa.Table) -> str:
    """A hash of all that a training set is made of.

    A question that was asked again and got the same completions does not change it.
    """
    digest = hashlib.sha256(str(PREPARED_SCHEMA).encode())
    for row in _rows(
        table.select(
            ["question_id", "question", "choices", "gold", "outcome", "vote", "completions"]
        )
    ):
        read = [
            [completion[name] for name in ("rationale", "answer", "role", "reason")]
            for completion in row["completions"]
        ]
        digest.update(json.dumps(row | {"completions": read}).encode())
    return digest.hexdigest()


def _nothing_left(recipe: Recipe, table: pa.Table, dropped: Sequence[dict[str, str]]) -> str:
    if not table.num_rows:
        return "there are no rationales to train on: run `qcrd generate` first"
    reasons = "; ".join(
        f"{reason}: {count}"
        for reason, count in Counter(row["reason"] for row in dropped).most_common(5)
    )
    hint = (
        " Set objective.labels to `vote` to train on the teacher's answers."
        if recipe.objective.labels == "gold"
        else ""
    )
    return f"none of the {table.num_rows} questions can be trained on ({reasons}).{hint}"
