"""The files of a split's rationales, and how an interrupted run is continued.

requests/<shard>/<part>.parquet   one row per question, under the id of its request
pending/<shard>.parquet           the requests that are not answered yet, a row group for each block
rows/<shard>-of-<shards>.parquet  finished rows (RATIONALE_SET_SCHEMA), by question id
rows/<shard>/<block>-*.jsonl      journals of the rows finished since; the next settling merges them
stale/*.parquet                   finished rows whose question or prompt has changed; never read
manifest.json                     counts, settings, versions (RationaleManifest)

A shard is settled by itself, in any process. `rows/` alone decides what is finished, and a row is
there as soon as it is answered, so a kill at any moment costs the requests in flight and nothing
else. A file that cannot be read is set aside, and its rows are asked again.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where no type checker sees them.
from __future__ import annotations

import re
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qcrd_ray.data.records import ANSWERED, RATIONALE_SET_SCHEMA, Outcome
from qcrd_ray.rationales.journal import read_journal
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.runs.files import atomic_file, set_aside, write_table

ROWS_PER_GROUP = 1_000  # of a file of finished rows: what a reader holds at a time
JOURNAL = ".jsonl"
_ANSWERED = pa.array([outcome.value for outcome in ANSWERED])
_COUNTED = [
    *("outcome", "attempts", "reason", "samples_asked"),
    *(f"completions.list.element.{name}" for name in ("role", "tokens")),
]


@dataclass(kw_only=True)
class ShardCounts:
    """What a settled shard holds; adding two gives what both hold.

    ``finished`` leaves failed rows out, ``pending`` are the requests to ask. ``answered`` are rows
    whose samples came back, ``samples_asked`` of them all. ``stopped`` are the reasons of failed
    rows that were never asked, ``failure`` is the reason of one that was, and ``example`` is a row.
    """

    requests: int = 0
    finished: int = 0
    pending: int = 0
    answered: int = 0
    samples_asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    stopped: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    example: dict[str, Any] | None = None

    def __iadd__(self, other: ShardCounts) -> ShardCounts:
        self.requests += other.requests
        self.finished += other.finished
        self.pending += other.pending
        self.answered += other.answered
        self.samples_asked += other.samples_asked
        self.outcomes += other.outcomes
        self.roles += other.roles
        self.tokens += other.tokens
        self.stopped += other.stopped
        self.failure = self.failure or other.failure
        self.example = self.example or other.example
        return self


class RationaleStore:
    """The files of one split. The constructor touches nothing on the disk."""

    def __init__(self, root: Path):
        self.requests = root / "requests"
        self.pending = root / "pending"
        self.rows = root / "rows"
        self.stale = root / "stale"
        self.manifest = root / "manifest.json"

    @property
    def shards(self) -> int | None:
        """How many shards the finished rows are in; None: there are none yet.

        They stay as many as they were when the first was finished.
        """
        names = (re.search(r"-of-(\d+)$", file.stem) for file in self.rows.glob("*-of-*.parquet"))
        return next((int(name[1]) for name in names if name), None)

    def begin(self, shards: int) -> None:
        """Make room for the requests of ``shards`` shards, and name the shards' files.

        The first file of finished rows is written here, empty if need be: its name says for ever
        how many shards there are. What was pending stays until its shard is settled: it says that
        the split is not finished.
        """
        shutil.rmtree(self.requests, ignore_errors=True)
        if self.shards is None:  # what is pending is of other shards
            shutil.rmtree(self.pending, ignore_errors=True)
            write_table(RATIONALE_SET_SCHEMA.empty_table(), self.shard_file(0, shards))
        for folder in (self.requests, self.pending):
            folder.mkdir(parents=True, exist_ok=True)

    def shard_file(self, shard: int, shards: int) -> Path:
        """The finished rows of a shard."""
        return self.rows / f"{shard:05d}-of-{shards:05d}.parquet"

    def new_journal(self, shard: int, block: int, call: str) -> Path:
        """Where one asker writes the rows of a block of a shard's pending requests.

        ``call`` names the call that the block is of: an earlier call's block of the same number
        holds other requests, and its askers may live a moment longer than its driver.
        """
        name = f"{block:06d}-{call}-{uuid.uuid4().hex[:8]}.jsonl"
        return self.rows / f"{shard:05d}" / name

    def answered(self, shard: int, block: int, call: str) -> pa.Table:
        """The rows of a block that this call has finished: by an asker that died."""
        files = sorted((self.rows / f"{shard:05d}").glob(f"{block:06d}-{call}-*.jsonl"))
        return pa.concat_tables([RATIONALE_SET_SCHEMA.empty_table(), *map(read_journal, files)])

    def pending_file(self, shard: int) -> Path:
        """The requests of a shard that are still to be answered."""
        return self.pending / f"{shard:05d}.parquet"

    def read_block(self, shard: int, block: int) -> pa.Table:
        """The requests of a block (REQUEST_SCHEMA)."""
        with pq.ParquetFile(self.pending_file(shard)) as file:
            return file.read_row_group(block)

    def files(self) -> list[Path]:
        """The files of finished rows, by shard; journals may grow meanwhile."""
        return sorted([*self.rows.glob("[!.]*.parquet"), *self.rows.glob("*/[!.]*.jsonl")])

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the finished rows, or more; at most ROWS_PER_GROUP rows at a time.

        Columns of the list of completions are named `completions.list.element.role` and so on.
        """
        for file in self.files():
            if file.suffix == JOURNAL:
                yield read_journal(file)
                continue
            with pq.ParquetFile(file) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group, columns=columns)

    # --- Settling a shard ---

    def settle(self, shard: int, *, shards: int, ask_failed: bool, block_rows: int) -> ShardCounts:
        """Merge a shard's finished blocks, and write what is pending. Can be repeated at any time.

        Rows that are no longer requested move to `stale/`. A gold answer that has changed is
        updated in its finished row. A row that was written twice counts once.

        Args:
            ask_failed: drop the failed rows, so that they are asked again.
            block_rows: how many pending requests make a block.
        """
        requests = self._requests_of(shard)
        gold = dict(zip(requests["id"].to_pylist(), requests["gold"].to_pylist(), strict=True))
        merged = self.shard_file(shard, shards)
        journals = sorted((self.rows / f"{shard:05d}").glob("[!.]*.jsonl"))
        files = [merged, *journals] if merged.exists() else journals
        kept: dict[str, tuple[str, int, int]] = {}  # by id: the question's id, file, row
        failed: set[str] = set()
        stale: list[tuple[int, int]] = []
        changed = bool(journals)
        for number, file in enumerate(files):
            columns = _read(file, columns=["id", "question_id", "outcome", "gold"])
            changed = changed or columns is None
            rows = (
                zip(*(each.to_pylist() for each in columns.columns), strict=True) if columns else ()
            )
            for place, (id, question, outcome, answer) in enumerate(rows):
                has_failed = outcome == Outcome.FAILED
                if ask_failed and has_failed:
                    changed = True
                elif id not in gold:
                    stale.append((number, place))
                elif id not in kept or (id in failed and not has_failed):
                    kept[id] = (question, number, place)
                    (failed.add if has_failed else failed.discard)(id)
                    changed = changed or answer != gold[id]
        if changed or stale:
            used = {number for _, number, _ in kept.values()} | {number for number, _ in stale}
            tables = {number: _read(files[number]) for number in sorted(used)}
            whole = {number: table for number, table in tables.items() if table is not None}
            if len(whole) < len(used):  # torn in a column that was not read before
                return self.settle(
                    shard, shards=shards, ask_failed=ask_failed, block_rows=block_rows
                )
            self._rewrite(merged, whole, kept, stale, gold)
            shutil.rmtree(self.rows / f"{shard:05d}", ignore_errors=True)
        pending = requests.filter(
            pa.array([id not in kept for id in requests["id"].to_pylist()], pa.bool_())
        )
        if pending.num_rows:
            with atomic_file(self.pending_file(shard)) as writing:
                pq.write_table(pending, writing, row_group_size=block_rows)
        else:
            self.pending_file(shard).unlink(missing_ok=True)
        counts = self._count(merged)
        counts.requests, counts.pending = requests.num_rows, pending.num_rows
        return counts

    def _requests_of(self, shard: int) -> pa.Table:
        files = sorted((self.requests / f"{shard:05d}").glob("[!.]*.parquet"))
        tables = [pq.read_table(file, schema=REQUEST_SCHEMA) for file in files]
        return pa.concat_tables(tables) if tables else REQUEST_SCHEMA.empty_table()

    def _rewrite(
        self,
        merged: Path,
        tables: Mapping[int, pa.Table],
        kept: dict[str, tuple[str, int, int]],
        stale: Sequence[tuple[int, int]],
        gold: dict[str, str | None],
    ) -> None:
        """Write the kept rows by question id, and the stale ones before anything is deleted."""
        rows = _Rows(tables)
        if stale:
            write_table(
                rows.take(stale), self.stale / f"{merged.stem}-{uuid.uuid4().hex[:8]}.parquet"
            )
        ordered = sorted((question, id, *at) for id, (question, *at) in kept.items())
        with (
            atomic_file(merged) as writing,
            pq.ParquetWriter(writing, RATIONALE_SET_SCHEMA) as writer,
        ):
            for first in range(0, len(ordered), ROWS_PER_GROUP):
                members = ordered[first : first + ROWS_PER_GROUP]
                table = rows.take([at for _, _, *at in members])
                answers = pa.array([gold[id] for _, id, *_ in members], pa.string())
                table = table.set_column(table.schema.get_field_index("gold"), "gold", answers)
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)

    def _count(self, merged: Path) -> ShardCounts:
        counts = ShardCounts()
        if not merged.exists():
            return counts
        with pq.ParquetFile(merged) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=_COUNTED)
                answered = rows.filter(pc.is_in(rows["outcome"], _ANSWERED))
                counts.answered += answered.num_rows
                counts.samples_asked += pc.sum(answered["samples_asked"]).as_py() or 0
                counts.outcomes.update(_counted(rows["outcome"]))
                failed = rows.filter(pc.equal(rows["outcome"], Outcome.FAILED.value))
                for attempts, reason in zip(
                    failed["attempts"].to_pylist(), failed["reason"].to_pylist(), strict=True
                ):
                    if attempts:
                        counts.failure = counts.failure or reason
                    else:
                        counts.stopped[reason] += 1
                completions = pc.list_flatten(rows["completions"])
                counts.roles.update(_counted(pc.struct_field(completions, "role")))
                counts.tokens += pc.sum(pc.struct_field(completions, "tokens")).as_py() or 0
            counts.finished = file.metadata.num_rows - counts.outcomes[Outcome.FAILED]
            counts.example = _example(file)
        return counts


class _Rows:
    """The rows of several tables, by table and place.

    To take from a whole table fails above 2 GiB of text, so each batch of one gives its own rows.
    """

    def __init__(self, tables: Mapping[int, pa.Table]):
        self._batches = {number: table.to_batches() for number, table in tables.items()}
        self._ends = {
            number: np.cumsum([batch.num_rows for batch in batches])
            for number, batches in self._batches.items()
        }

    def take(self, places: Sequence[Sequence[int]]) -> pa.Table:
        """The rows at ``places``, each a table's number and a place in it, in that order."""
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for order, (number, place) in enumerate(places):
            ends = self._ends[number]
            batch = int(np.searchsorted(ends, place, "right"))
            first = int(ends[batch - 1]) if batch else 0
            wanted[number, batch].append((place - first, order))
        taken = [
            self._batches[number][batch].take(pa.array([place for place, _ in members]))
            for (number, batch), members in wanted.items()
        ]
        order = np.argsort([order for members in wanted.values() for _, order in members])
        return pa.Table.from_batches(taken).combine_chunks().take(order)


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(values).to_pylist()}


def _read(file: Path, columns: list[str] | None = None) -> pa.Table | None:
    """The rows of a file, or some columns of them. None: it is torn, and has been set aside."""
    if file.suffix == JOURNAL:
        table = read_journal(file)
        return table if columns is None else table.select(columns)
    schema = RATIONALE_SET_SCHEMA
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        return pq.read_table(file, schema=wanted)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault: the file may be whole
        set_aside(file, error)
        return None


def _example(file: pq.ParquetFile) -> dict[str, Any] | None:
    columns = ["question_id", "outcome", "reason", "completions"]
    if not file.metadata.num_rows:
        return None
    return file.read_row_group(0, columns=columns).slice(0, 1).to_pylist()[0]
