"""The store: what a killed, failed or changed run leaves behind, and what the next one makes of
it.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qcrd_ray.data.records import (
    COMPLETION_TYPE,
    RATIONALE_SET_SCHEMA,
    Completion,
    Outcome,
    RationaleSet,
    Role,
)
from qcrd_ray.errors import UserError
from qcrd_ray.rationales import store as store_module
from qcrd_ray.rationales.requests import REQUEST_SCHEMA, shard_count, shard_of
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.run.files import write_table
from qcrd_ray.run.folder import RunFolder


def rows(*pairs: tuple[str, Outcome], gold: str = "1", **more) -> pa.Table:
    sets = [
        RationaleSet(id=id, question_id=f"q-{id}", question="?", gold=gold, outcome=outcome, **more)
        for id, outcome in pairs
    ]
    return pa.Table.from_pylist([row.row() for row in sets], schema=RATIONALE_SET_SCHEMA)


def settle(
    store: RationaleStore,
    ids: str,
    *,
    gold: str = "1",
    ask_failed: bool = True,
    block_rows: int = 2,
) -> ShardCounts:
    """What the next call does with a store of one shard, where it wants the requests ``ids``."""
    store.begin(1)
    asked = [
        {"id": id, "question_id": f"q-{id}", "question": "?", "choices": [], "gold": gold}
        for id in ids
    ]
    write_table(
        pa.Table.from_pylist(asked, schema=REQUEST_SCHEMA), store.requests / "00000/00000.parquet"
    )
    return store.settle(0, shards=1, ask_failed=ask_failed, block_rows=block_rows)


def finished(store: RationaleStore) -> list[str]:
    """In the order of the files."""
    return [id for table in store.tables(["id"]) for id in table["id"].to_pylist()]


def pending(store: RationaleStore) -> list[list[str]]:
    """The ids of each block."""
    file = store.pending_file(0)
    count = pq.ParquetFile(file).num_row_groups if file.exists() else 0
    return [store.read_block(0, block)["id"].to_pylist() for block in range(count)]


@pytest.fixture
def store(tmp_path) -> RationaleStore:
    """Two finished blocks, not merged yet: d unparsed and c failed, b and a accepted."""
    store = RationaleStore(tmp_path)
    write_table(rows(("d", Outcome.UNPARSED), ("c", Outcome.FAILED)), store.block_file(0, 0))
    write_table(rows(("b", Outcome.ACCEPTED), ("a", Outcome.ACCEPTED)), store.block_file(0, 1))
    return store


def test_a_new_store_has_nothing_finished(tmp_path):
    store = RationaleStore(tmp_path)
    counts = settle(store, "abc")
    assert (counts.requests, counts.finished, counts.pending) == (3, 0, 3)
    assert pending(store) == [["a", "b"], ["c"]]  # in the order of the questions


def test_failed_rows_are_asked_again_and_the_others_are_not(store):
    assert settle(store, "abcd").finished == 3
    assert finished(store) == ["a", "b", "d"]  # by question id, however they were answered
    assert pending(store) == [["c"]]
    assert not store.stale.exists()


def test_failed_rows_are_kept_when_nothing_is_asked_after(store):
    """Bug guarded: the counts of a run would not add up to its questions."""
    counts = settle(store, "abcd", ask_failed=False)
    assert finished(store) == ["a", "b", "c", "d"]
    assert counts.outcomes == {"accepted": 2, "failed": 1, "unparsed": 1}
    assert (counts.requests, counts.finished, counts.pending) == (4, 3, 0)


def test_blocks_are_merged_into_one_file_by_shard(store):
    settle(store, "abcd")
    assert [file.name for file in store.files()] == ["00000-of-00001.parquet"]
    assert not list(store.rows.glob("00000/*"))


def test_rows_of_changed_questions_are_set_aside_and_not_thrown_away(store):
    """They were paid for; but left among the rows they would be trained on and counted."""
    assert settle(store, "bcd").finished == 2
    assert finished(store) == ["b", "d"]
    assert pq.read_table(store.stale)["id"].to_pylist() == ["a"]


def test_a_mended_gold_answer_reaches_the_finished_row(store):
    assert settle(store, "abd", gold="2").finished == 3
    assert {gold for table in store.tables(["gold"]) for gold in table["gold"].to_pylist()} == {"2"}


def test_what_was_being_written_at_a_kill_is_no_row(store):
    """A file is written under a hidden name; killed before it is renamed, it is half a file."""
    (store.rows / "00000" / ".000007.parquet.writing").write_bytes(b"PAR1 half a file")
    (store.rows / ".00000-of-00001.parquet.writing").write_bytes(b"PAR1 half a file")
    assert settle(store, "abcde").finished == 3
    assert pending(store) == [["c", "e"]]


@pytest.mark.parametrize("ask_failed", [True, False])
def test_a_row_written_twice_counts_once(store, ask_failed):
    """A run that is killed between merging blocks and deleting them leaves rows in both."""
    settle(store, "abd")
    write_table(rows(("b", Outcome.ACCEPTED), ("e", Outcome.ACCEPTED)), store.block_file(0, 1))
    assert settle(store, "abde", ask_failed=ask_failed).finished == 4
    assert finished(store) == ["a", "b", "d", "e"]
    assert not store.stale.exists()


def test_settling_twice_changes_nothing(store):
    settle(store, "abd")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in store.files()}
    assert settle(store, "abd").pending == 0
    after = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in store.files()}
    assert after == before


def test_what_is_counted(tmp_path):
    store = RationaleStore(tmp_path)
    samples = (Completion(text="8", tokens=3, role=Role.POSITIVE), Completion(text="?", tokens=4))
    write_table(rows(("a", Outcome.ACCEPTED), completions=samples), store.block_file(0, 0))
    never = rows(("b", Outcome.FAILED), reason="the limit is reached", attempts=0)
    tried = rows(("c", Outcome.FAILED), reason="no answer", attempts=4)
    write_table(pa.concat_tables([never, tried]), store.block_file(0, 1))
    counts = settle(store, "abc", ask_failed=False)
    assert (counts.roles, counts.tokens) == ({"positive": 1, "abstained": 1}, 7)
    assert counts.stopped == {"the limit is reached": 1}
    assert counts.example is not None and counts.example["question_id"] == "q-a"


def test_a_merged_file_has_row_groups_that_a_reader_can_hold(store, monkeypatch):
    """Bug guarded: sorting a table fails above 2 GiB of text; its rows are cut and joined."""
    monkeypatch.setattr(store_module, "ROWS_PER_GROUP", 2)
    settle(store, "abd")
    file = pq.ParquetFile(store.shard_file(0, 1))
    groups = [file.read_row_group(i)["id"].to_pylist() for i in range(file.num_row_groups)]
    assert groups == [["a", "b"], ["d"]]


def test_a_store_stays_in_as_many_shards_as_it_began_with(tmp_path):
    """Bug guarded: with more questions than before, each would be looked for in another shard and
    paid for again.
    """
    store = RationaleStore(tmp_path)
    assert store.shards is None
    store.begin(3)
    assert store.shards == RationaleStore(tmp_path).shards == 3


def test_shards():
    assert [shard_count(n) for n in (0, 1, 10_000, 10_001, 10**6, 10**9)] == [1, 1, 1, 2, 100, 1024]
    spread = [shard_of(f"q{i}", 8) for i in range(8_000)]
    assert min(map(spread.count, range(8))) > 850
    assert shard_of("caf\u00e9 \udc80", 1024) == 628  # in every process


def test_rows_of_before_there_was_thinking_are_still_read(tmp_path):
    """Bug guarded: a column that came later made every older run folder unreadable."""
    place = RATIONALE_SET_SCHEMA.get_field_index("completions")
    older = pa.list_(pa.struct([field for field in COMPLETION_TYPE if field.name != "thinking"]))
    table = rows(("e", Outcome.ACCEPTED), completions=(Completion(text="8"),))
    table = pa.Table.from_pylist(
        table.to_pylist(), schema=RATIONALE_SET_SCHEMA.set(place, pa.field("completions", older))
    )
    old = RationaleStore(RunFolder(tmp_path).rationales("train"))
    write_table(table, old.shard_file(0, 1))
    # rewrites the row, as its gold answer was mended
    assert settle(old, "e", gold="2").finished == 1
    (read,) = RunFolder(tmp_path).read_rationales("train").to_pylist()
    assert (read["gold"], read["completions"][0]["text"], read["completions"][0]["thinking"]) == (
        "2",
        "8",
        None,
    )


def test_a_split_that_is_not_asked_to_its_end_is_not_trained_on(tmp_path):
    """Bug guarded: `qcrd train` after an interrupted `qcrd generate` left out, without a word, the
    blocks that were not merged into their shard yet; or all that had not been asked.
    """
    folder = RunFolder(tmp_path)
    store = RationaleStore(folder.rationales("train"))
    write_table(rows(("a", Outcome.ACCEPTED)), store.block_file(0, 0))
    settle(store, "a")
    assert folder.read_rationales("train").num_rows == 1
    settle(store, "ab")  # killed before b is answered
    with pytest.raises(UserError, match=r"questions of train.*Run `qcrd generate`"):
        folder.rationale_files("train")
    store.begin(1)  # and once more, before its shard is settled
    with pytest.raises(UserError, match="interrupted"):
        folder.rationale_files("train")
    settle(store, "ab")
    write_table(rows(("b", Outcome.ACCEPTED)), store.block_file(0, 0))
    store.pending_file(0).unlink()  # killed before the block is merged
    with pytest.raises(UserError, match="interrupted"):
        folder.rationale_files("train")
    settle(store, "ab")
    assert folder.read_rationales("train")["id"].to_pylist() == ["a", "b"]
