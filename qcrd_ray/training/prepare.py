"""From voted rationales to the training set: tokenized, memory-mapped Arrow files.

    data/train-<part>.arrow  a row per question (PREPARED_SCHEMA), by question id within a part
    data/judge.parquet       questions that are kept from the student for the judge
    data/dropped.jsonl       the questions that are not trained on, each with its reason
    data/manifest.json       a TrainingSetManifest: counts, also of what was cut and left out

Rationales come in parts, the shards of :mod:`qcrd_ray.rationales.store`, and each part is prepared
by itself. All objectives read the same files: the baselines see the same questions.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from qcrd_ray.cluster.tasks import map_tasks
from qcrd_ray.data.records import QUESTION_SCHEMA, Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import atomic_file, write_table, write_text
from qcrd_ray.runs.manifests import TrainingSetManifest
from qcrd_ray.tasks.base import Task
from qcrd_ray.training.targets import PREPARED_SCHEMA, select_targets, tokenize_targets

# Rationale sets (RATIONALE_SET_SCHEMA) in memory, or a file of them.
Rationales = pa.Table | Path

_ROWS_PER_BATCH = 1_000
_PARTS = 10**6  # how finely a share of the questions is drawn
_LONGEST = "longest_label"  # the one count that is not a sum
# Of a rationale set, what a training set is made of, beside its completions.
_READ = ("question_id", "question", "choices", "gold", "outcome", "vote")

JUDGE_QUESTIONS = "judge.parquet"
FOR_JUDGE = "kept for the judge (judge.share)"


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """What became of the rationale sets of one part."""

    rows: int
    counts: Counter[str]
    dropped: Counter[str]  # by reason


def prepare(
    recipe: Recipe,
    parts: Sequence[Rationales],
    folder: Path,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> TrainingSetManifest:
    """Write the training set of ``parts`` to ``folder``; several parts are work for Ray tasks.

    One that was made of the same rows is kept. Returns the manifest.

    Raises:
        UserError: no question is left to train on, or the rationales or gold answers have changed
            since a training on them began.
    """
    manifest_path, source = folder / "manifest.json", digest_of(parts)
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
    for file in folder.iterdir():
        file.unlink()
    work = partial(_prepare_part, recipe=recipe, folder=folder, task=task, tokenizer=tokenizer)
    results = [result for _, result in map_tasks(work, list(enumerate(parts)), num_cpus=1)]
    rows = sum(result.rows for result in results)
    counts, dropped = Counter[str](), Counter[str]()
    for result in results:
        counts.update(result.counts)  # keeps a count of 0, which `+` does not
        dropped.update(result.dropped)
    counts[_LONGEST] = max((result.counts[_LONGEST] for result in results), default=0)
    if not counts["questions"]:
        raise UserError(_nothing_left(recipe, rows, dropped))
    _join(sorted(folder.glob("dropped-*.jsonl")), folder / "dropped.jsonl")
    if files := sorted(folder.glob("judge-*.parquet")):
        write_table(pa.concat_tables(map(pq.read_table, files)), folder / JUDGE_QUESTIONS)
        for file in files:
            file.unlink()
    facts = {"source": source, "rows": rows, **counts, "dropped": dict(dropped)}
    manifest = cast(TrainingSetManifest, facts)  # `counts` holds the other fields
    write_text(manifest_path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def _prepare_part(
    part: tuple[int, Rationales],
    *,
    recipe: Recipe,
    folder: Path,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
) -> PartCounts:
    """Write the files of one part, which has its place among the parts."""
    place, rationales = part
    counts, reasons, rows = Counter[str](), Counter[str](), 0
    apart: list[dict[str, Any]] = []
    with (
        atomic_file(folder / f"train-{place:05d}.arrow") as training,
        atomic_file(folder / f"dropped-{place:05d}.jsonl") as dropped,
        dropped.open("w", encoding="utf-8") as dropping,
        pa.OSFile(str(training), "wb") as sink,
        pa.ipc.new_stream(sink, PREPARED_SCHEMA) as writer,
    ):
        for batch in _batches(rationales):
            kept = []
            for row in batch:
                rows += 1
                if question := _for_judge(row, recipe):
                    apart.append(question)
                    prepared, reason = None, FOR_JUDGE
                else:
                    prepared, reason = select_targets(row, task, recipe)
                if prepared is not None:
                    kept.append(prepared)
                    continue
                reasons[reason] += 1
                line = {"question_id": row["question_id"], "reason": reason}
                dropping.write(json.dumps(line, ensure_ascii=False) + "\n")
            tokenize_targets(kept, tokenizer, task, recipe, counts)
            writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=PREPARED_SCHEMA))
    if apart:
        write_table(
            pa.Table.from_pylist(apart, schema=QUESTION_SCHEMA),
            folder / f"judge-{place:05d}.parquet",
        )
    return PartCounts(rows=rows, counts=counts, dropped=reasons)


def _join(files: Sequence[Path], whole: Path) -> None:
    """Join text files into ``whole``, in their order."""
    with atomic_file(whole) as writing, writing.open("wb") as joined:
        for file in files:
            joined.write(file.read_bytes())
    for file in files:
        file.unlink()


def rationale_rows(parts: Iterable[Rationales]) -> Iterator[dict[str, Any]]:
    """The rows of all parts, a batch in memory at a time."""
    for part in parts:
        for batch in _batches(part):
            yield from batch


def _batches(part: Rationales) -> Iterator[list[dict[str, Any]]]:
    if isinstance(part, Path):
        with pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).to_pylist()
    else:
        for batch in part.to_batches(max_chunksize=_ROWS_PER_BATCH):
            yield batch.to_pylist()


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


def digest_of(parts: Sequence[Rationales]) -> str:
    """A hash of all that a training set is made of.

    A question that was asked again and got the same completions does not change it.
    """
    results = map_tasks(_digest, list(enumerate(parts)), num_cpus=1)
    digests = {place: digest for (place, _), digest in results}
    return hashlib.sha256("".join(digests[i] for i in sorted(digests)).encode()).hexdigest()


def _digest(part: tuple[int, Rationales]) -> str:
    digest = hashlib.sha256(str(PREPARED_SCHEMA).encode())
    for batch in _batches(part[1]):
        for row in batch:
            read = {name: row[name] for name in _READ}
            completions = [
                [completion[name] for name in ("rationale", "answer", "role", "reason")]
                for completion in row["completions"]
            ]
            digest.update(json.dumps(read | {"completions": completions}).encode())
    return digest.hexdigest()


def _nothing_left(recipe: Recipe, rows: int, dropped: Counter[str]) -> str:
    if not rows:
        return "there are no rationales to train on: run `qcrd generate` first"
    reasons = "; ".join(f"{reason}: {count}" for reason, count in dropped.most_common(5))
    hint = (
        " Set objective.labels to `vote` to train on the teacher's answers."
        if recipe.objective.labels == "gold"
        else ""
    )
    return f"none of the {rows} questions can be trained on ({reasons}).{hint}"
