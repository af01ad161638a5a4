"""The files of a split's rationales, how an interrupted run is continued, and the manifest.

requests.parquet   one row per question, under the id of its request: the job's input
rows/*.parquet     finished rows (RATIONALE_SET_SCHEMA); everything else is made from them
checkpoint/        ids of the finished rows, for Ray Data's `CheckpointConfig`
stale/*.parquet    finished rows whose question or prompt has changed since; never read
manifest.json      counts, settings, versions (RationaleManifest)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.cluster.ray_internals import PENDING_CHECKPOINT
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome, Question, Role
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.run.manifests import AskedCounts, AskingCall, Overlap, RationaleManifest
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.teacher import Prompt

REQUEST_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.string()),
    ]
)


class RationaleStore:
    """The files of one split. The constructor touches nothing on the disk."""

    def __init__(self, root: Path):
        self.requests = root / "requests.parquet"
        self.rows = root / "rows"
        self.checkpoint = root / "checkpoint"
        self.stale = root / "stale"
        self.manifest = root / "manifest.json"

    def open(self, requests: dict[str, Question]) -> int:
        """Prepare the folder for ``requests`` (by id); return how many are finished already.

        Rows that failed are dropped, so that they are asked again. Rows that are no longer
        requested move to `stale/`. A gold answer that has changed is updated in its finished row. A
        call that is killed in here is repaired by the next one: `rows/` alone decides.
        """
        for folder in (self.rows, self.checkpoint):
            folder.mkdir(parents=True, exist_ok=True)
        self._discard_half_written()
        write_table(
            pa.Table.from_pylist(
                [_request_row(id, question) for id, question in requests.items()],
                schema=REQUEST_SCHEMA,
            ),
            self.requests,
        )
        finished: set[str] = set()
        rewrites = []
        for file in self.files():
            table = pq.read_table(file, columns=["id", "outcome", "gold"])
            keep = [self._keeps(row, requests, finished) for row in table.to_pylist()]
            gold = [
                requests[id].answer if id in requests else None for id in table["id"].to_pylist()
            ]
            if not all(keep) or gold != table["gold"].to_pylist():
                rewrites.append((file, keep, gold))
        # before the rows: an id that is in the checkpoint and in no row would be lost
        self._write_checkpoint(finished)
        for rewrite in rewrites:
            self._rewrite(*rewrite)
        return len(finished)

    def files(self) -> list[Path]:
        """The files of `rows/`, in the order of their names."""
        return sorted(self.rows.glob("*.parquet"))

    def finished_files(self) -> list[Path]:
        """The complete files of `rows/`, also while a job is writing others."""
        pending = tuple(
            file.name.removesuffix(PENDING_CHECKPOINT)
            for file in self.checkpoint.glob(f"*{PENDING_CHECKPOINT}")
        )
        return [file for file in self.files() if not file.name.startswith(pending)]

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the finished rows, a file at a time.

        Columns of the list of completions are named `completions.list.element.role` and so on.
        """
        for file in self.finished_files():
            with pq.ParquetFile(file) as parquet:
                yield parquet.read(columns=columns)

    def _keeps(self, row: dict, requests: dict[str, Question], finished: set[str]) -> bool:
        """Whether a row is finished, requested and no duplicate; adds it to ``finished``."""
        keeps = (
            row["outcome"] != Outcome.FAILED and row["id"] in requests and row["id"] not in finished
        )
        if keeps:
            finished.add(row["id"])
        return keeps

    def _discard_half_written(self) -> None:
        """Remove what Ray Data was writing when a run was killed.

        It names a block's rows after the block's pending checkpoint.
        """
        for pending in self.checkpoint.glob(f"*{PENDING_CHECKPOINT}"):
            for file in self.rows.glob(f"{pending.name.removesuffix(PENDING_CHECKPOINT)}*"):
                file.unlink()
            pending.unlink()

    def _write_checkpoint(self, finished: set[str]) -> None:
        shutil.rmtree(self.checkpoint)
        self.checkpoint.mkdir()
        if finished:
            write_table(
                pa.table({"id": pa.array(sorted(finished), pa.string())}),
                self.checkpoint / "finished.parquet",
            )

    def _rewrite(self, file: Path, keep: list[bool], gold: list[str | None]) -> None:
        table = pq.read_table(file, schema=RATIONALE_SET_SCHEMA)
        table = table.set_column(
            table.schema.get_field_index("gold"), "gold", pa.array(gold, pa.string())
        )
        failed = [outcome == Outcome.FAILED for outcome in table["outcome"].to_pylist()]
        stale = [not kept and not failed for kept, failed in zip(keep, failed, strict=True)]
        if any(stale):
            write_table(table.filter(pa.array(stale)), self.stale / file.name)
        kept = table.filter(pa.array(keep))
        if kept.num_rows:
            write_table(kept, file)
        else:
            file.unlink()


def _request_row(id: str, question: Question) -> dict:
    return {
        "id": id,
        "question_id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "gold": question.answer,
    }


def request_id(question: Question, prompt: Prompt, *, teacher: dict, sampling: dict) -> str:
    """An id that changes whenever the teacher's answer could: 128 bits in hex.

    It hashes the user's id, the question, the prompt, the teacher's identity and the sampling. A
    finished row is therefore never paid for twice, and a changed one is asked again. The gold
    answer is no part of it: correcting a label costs no new answer from the teacher.
    """
    content = {
        "id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "prompt": prompt,
        "teacher": teacher,
        "sampling": sampling,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def summarise(
    recipe: Recipe,
    store: RationaleStore,
    *,
    split: str,
    rejected: int,
    requests: int,
    overlap: dict[str, Overlap],
    asked: AskedCounts | None,
) -> RationaleManifest:
    """Count the finished rows, check that none is missing, and write the manifest.

    Args:
        rejected: rows that could not become questions.
        requests: questions that must have ended in `rows/`.
        overlap: see :class:`~qcrd_ray.run.manifests.RationaleManifest`.
        asked: what this run asked, None where it had nothing to ask.
    """
    outcomes = Counter({outcome.value: 0 for outcome in Outcome})
    roles = Counter({role.value: 0 for role in Role})
    tokens = 0
    for table in store.tables(
        ["outcome", "completions.list.element.role", "completions.list.element.tokens"]
    ):
        outcomes.update(table["outcome"].to_pylist())
        for completions in table["completions"].to_pylist():
            roles.update(completion["role"] for completion in completions)
            tokens += sum(completion["tokens"] for completion in completions)
    assert outcomes.total() == requests, (
        f"{requests} questions were asked and {outcomes.total()} rows came out"
    )
    outcomes[Outcome.REJECTED_INPUT.value] += rejected
    calls = _earlier_calls(store)
    if asked is not None:
        calls.append({**describe_call(recipe.seed), **asked})
    manifest = RationaleManifest(
        split=split,
        rows=requests + rejected,
        outcomes=dict(outcomes),
        completions=roles.total(),
        roles=dict(roles),
        tokens=tokens,
        overlap=overlap,
        settings=_settings(recipe),
        calls=calls,
    )
    write_text(store.manifest, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _settings(recipe: Recipe) -> dict:
    sections = {"task", "teacher", "sampling", "generation", "vote"}
    settings = recipe.model_dump(mode="json", include=sections)
    settings["teacher"].pop("env", None)  # may hold secrets
    return settings


def _earlier_calls(store: RationaleStore) -> list[AskingCall]:
    return json.loads(store.manifest.read_text())["calls"] if store.manifest.exists() else []
