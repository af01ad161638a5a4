"""The files of a split's rationales, and what a run that was killed, or that failed in part, left
in them.

asks.parquet     one row per question, under the id that hashes all that is asked of it: the input
                 of the Ray Data job
rows/*.parquet   finished rows (RATIONALE_SET_SCHEMA); these files are the truth, the rest is made
                 from them
checkpoint/      the ids of the finished rows, as Ray Data's `CheckpointConfig` keeps them: it asks
                 for the others only
stale/*.parquet  finished rows of questions or prompts that have changed since; nothing reads them
manifest.json    counts, settings, versions
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome, Question, Role
from qcrd_ray.recipe import Recipe
from qcrd_ray.run.files import write_table, write_text
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.teacher import Prompt

ASK_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("gold", pa.string()),
    ]
)

_PENDING = ".pending.parquet"  # how Ray Data names the checkpoint of a block that it is writing


class Store:
    """The files of one split. Making one touches nothing on the disk."""

    def __init__(self, root: Path):
        self.asks = root / "asks.parquet"
        self.rows = root / "rows"
        self.checkpoint = root / "checkpoint"
        self.stale = root / "stale"
        self.manifest = root / "manifest.json"

    def open(self, asks: dict[str, Question]) -> int:
        """Make ready for asking ``asks`` (by id), and say how many of them are finished already.

        Rows that failed are forgotten, so that they are asked again; rows that nobody asks for any
        more are set aside; a gold answer
        that was mended reaches its finished row. A run that is killed in here is put right by the
        next one: `rows/` alone decides.
        """
        for folder in (self.rows, self.checkpoint):
            folder.mkdir(parents=True, exist_ok=True)
        self._discard_half_written()
        write_table(
            pa.Table.from_pylist(
                [_ask_row(id, question) for id, question in asks.items()], schema=ASK_SCHEMA
            ),
            self.asks,
        )
        finished: set[str] = set()
        rewrites = []
        for file in self.files():
            table = pq.read_table(file, columns=["id", "outcome", "gold"])
            keep = [self._keeps(row, asks, finished) for row in table.to_pylist()]
            gold = [asks[id].answer if id in asks else None for id in table["id"].to_pylist()]
            if not all(keep) or gold != table["gold"].to_pylist():
                rewrites.append((file, keep, gold))
        # before the rows: an id that is in the checkpoint and in no row would be lost
        self._write_checkpoint(finished)
        for rewrite in rewrites:
            self._rewrite(*rewrite)
        return len(finished)

    def files(self) -> list[Path]:
        return sorted(self.rows.glob("*.parquet"))

    def finished_files(self) -> list[Path]:
        """Those that nobody is writing and no kill has torn, so that a folder can be read while it
        is worked on.
        """
        pending = tuple(
            file.name.removesuffix(_PENDING) for file in self.checkpoint.glob(f"*{_PENDING}")
        )
        return [file for file in self.files() if not file.name.startswith(pending)]

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns (also of the list of completions: `completions.list.element.role`) of the
        finished rows, a file at a time.
        """
        for file in self.finished_files():
            with pq.ParquetFile(file) as parquet:
                yield parquet.read(columns=columns)

    def _keeps(self, row: dict, asks: dict[str, Question], finished: set[str]) -> bool:
        """Whether a row is finished, wanted and no duplicate; adds it to ``finished``."""
        keeps = row["outcome"] != Outcome.FAILED and row["id"] in asks and row["id"] not in finished
        if keeps:
            finished.add(row["id"])
        return keeps

    def _discard_half_written(self) -> None:
        """Remove what Ray Data was writing when a run was killed: it names a block's rows after its
        pending checkpoint.
        """
        for pending in self.checkpoint.glob(f"*{_PENDING}"):
            for file in self.rows.glob(f"{pending.name.removesuffix(_PENDING)}*"):
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
        paid_for = pc.and_(
            pc.invert(pa.array(keep)), pc.not_equal(table["outcome"], Outcome.FAILED.value)
        )
        if pc.any(paid_for).as_py():
            write_table(table.filter(paid_for), self.stale / file.name)
        kept = table.filter(pa.array(keep))
        if kept.num_rows:
            write_table(kept, file)
        else:
            file.unlink()


def _ask_row(id: str, question: Question) -> dict:
    return {
        "id": id,
        "question_id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "gold": question.answer,
    }


# MERGED rationales.ids: Ids that change whenever the answer could: with them a finished row is
# never paid for twice, and a changed one is asked again.


def ask_id(question: Question, prompt: Prompt, *, teacher: dict, sampling: dict) -> str:
    """128 bits in hex over the user's id, the question, the prompt, who is asked (``teacher``) and
    how (``sampling``).

    The gold answer is no part of it: mending a label costs no new answer from the teacher.
    """
    asked = {
        "id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "prompt": prompt,
        "teacher": teacher,
        "sampling": sampling,
    }
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


# MERGED rationales.manifest: What came of asking a split: counts that add up, settings, versions
# and speed, beside the rows that they count.


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``rows`` were read and ended in ``outcomes``, which add up to it; ``completions`` of the
    teacher took ``roles`` in the votes.

    ``calls`` lists the runs that asked, each with the rows it asked, seconds of asking (teacher's
    start excluded), tokens and versions;
    a run that was killed is not among them. Tokens are 0 where the source does not count them.
    ``overlap`` holds, for each split that is measured on, the ids of its questions that occur in
    this one, and of how many (training questions only).
    """

    split: str
    rows: int
    outcomes: dict[str, int]
    completions: int
    roles: dict[str, int]
    tokens: int
    overlap: dict[str, dict]
    settings: dict
    calls: list[dict]


def summarise(
    recipe: Recipe,
    store: Store,
    *,
    split: str,
    rejected: int,
    asked: int,
    overlap: dict[str, dict],
    call: dict | None,
) -> Manifest:
    """Count the finished rows, check that none is missing, and write the manifest.

    Args:
        rejected: rows that could not become questions.
        asked: questions that should have ended in `rows/`.
        overlap: see :class:`Manifest`.
        call: what this run did, None where it had nothing to ask.
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
    assert outcomes.total() == asked, (
        f"{asked} questions were asked and {outcomes.total()} rows came out"
    )
    outcomes[Outcome.REJECTED_INPUT.value] += rejected
    manifest = Manifest(
        split=split,
        rows=asked + rejected,
        outcomes=dict(outcomes),
        completions=roles.total(),
        roles=dict(roles),
        tokens=tokens,
        overlap=overlap,
        settings=_settings(recipe),
        calls=[*_earlier_calls(store), *([{**describe_call(recipe.seed), **call}] if call else [])],
    )
    write_text(store.manifest, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _settings(recipe: Recipe) -> dict:
    sections = {"task", "teacher", "sampling", "generation", "vote"}
    settings = recipe.model_dump(mode="json", include=sections)
    settings["teacher"].pop("env", None)  # may hold what is nobody's business
    return settings


def _earlier_calls(store: Store) -> list[dict]:
    return json.loads(store.manifest.read_text())["calls"] if store.manifest.exists() else []
