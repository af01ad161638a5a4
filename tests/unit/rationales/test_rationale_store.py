"""The store: what a killed, failed or changed run leaves behind, and what the next one makes of
it.
"""

from __future__ import annotations

from pathlib import Path

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
from qcrd_ray.rationales.journal import Journal, read_journal
from qcrd_ray.rationales.requests import REQUEST_SCHEMA, shard_count, shard_of
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.runs.files import write_table
from qcrd_ray.runs.folder import RunFolder


def sets(*pairs: tuple[str, Outcome], gold: str = "1", **more) -> list[RationaleSet]:
    return [
        RationaleSet(id=id, question_id=f"q-{id}", question="?", gold=gold, outcome=outcome, **more)
        for id, outcome in pairs
    ]


def journal(store: RationaleStore, sets: list[RationaleSet], *, call: str = "one") -> Path:
    """The file in which an asker has written ``sets``."""
    file = store.new_journal(0, 0, call)
    with Journal(file) as writing:
        writing.append(sets)
    return file


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
    journal(store, sets(("d", Outcome.UNPARSED), ("c", Outcome.FAILED)))
    journal(store, sets(("b", Outcome.ACCEPTED), ("a", Outcome.ACCEPTED)))
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
    assert not (store.rows / "00000").exists()


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
    with journal(store, sets(("c", Outcome.ACCEPTED))).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 20)
    (store.rows / ".00000-of-00001.parquet.writing").write_bytes(b"PAR1 half a file")
    assert settle(store, "abcde").finished == 3
    assert pending(store) == [["c", "e"]]


@pytest.mark.parametrize("ask_failed", [True, False])
def test_a_row_written_twice_counts_once(store, ask_failed):
    """A run that is killed between merging blocks and deleting them leaves rows in both."""
    settle(store, "abd")
    journal(store, sets(("b", Outcome.ACCEPTED), ("e", Outcome.ACCEPTED)))
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
    journal(store, sets(("a", Outcome.ACCEPTED), completions=samples))
    never = sets(("b", Outcome.FAILED), reason="the limit is reached", attempts=0)
    tried = sets(("c", Outcome.FAILED), reason="no answer", attempts=4)
    journal(store, [*never, *tried])
    counts = settle(store, "abc", ask_failed=False)
    assert (counts.roles, counts.tokens) == ({"positive": 1, "abstained": 1}, 7)
    assert counts.stopped == {"the limit is reached": 1}
    assert counts.failure == "no answer"
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
    (row,) = sets(("e", Outcome.ACCEPTED), completions=(Completion(text="8"),))
    table = pa.Table.from_pylist([row.row()], schema=RATIONALE_SET_SCHEMA)
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
    journal(store, sets(("a", Outcome.ACCEPTED)))
    settle(store, "a")
    assert folder.read_rationales("train").num_rows == 1
    settle(store, "ab")  # killed before b is answered
    with pytest.raises(UserError, match=r"questions of train.*Run `qcrd generate`"):
        folder.rationale_files("train")
    store.begin(1)  # and once more, before its shard is settled
    with pytest.raises(UserError, match="interrupted"):
        folder.rationale_files("train")
    settle(store, "ab")
    journal(store, sets(("b", Outcome.ACCEPTED)))
    store.pending_file(0).unlink()  # killed before the block is merged
    with pytest.raises(UserError, match="interrupted"):
        folder.rationale_files("train")
    settle(store, "ab")
    assert folder.read_rationales("train")["id"].to_pylist() == ["a", "b"]


def test_a_row_is_kept_as_soon_as_it_is_answered(tmp_path):
    """Bug guarded: a kill lost every answered row of the blocks that were being asked."""
    store = RationaleStore(tmp_path)
    file = store.new_journal(0, 3, "one")
    writing = Journal(file)
    writing.append(sets(("a", Outcome.ACCEPTED), reason="\n \u2028 half"))
    copy = tmp_path / "at the kill"
    copy.write_bytes(file.read_bytes())
    assert read_journal(copy)["id"].to_pylist() == ["a"]
    assert store.answered(0, 3, "one")["reason"].to_pylist() == ["\n \u2028 half"]
    assert store.answered(0, 3, "another").num_rows == 0
    assert store.new_journal(0, 3, "one") != file  # nobody appends to another's


def test_every_whole_line_of_a_torn_journal_is_read(tmp_path, caplog):
    """A lost host leaves a page of zeros; what comes behind it is paid for too."""
    store = RationaleStore(tmp_path)
    file = journal(store, sets(*((id, Outcome.ACCEPTED) for id in "abc")))
    first, second, third, _ = file.read_bytes().split(b"\n")
    file.write_bytes(first + b"\n" + b"\0" * len(second) + b"\n" + third + b"\n")
    assert read_journal(file)["id"].to_pylist() == ["a", "c"]
    assert "1 lines are torn" in caplog.text
    for length in range(len(first)):
        file.write_bytes(first[:length])
        assert read_journal(file).num_rows == 0


def test_a_torn_file_of_rows_is_set_aside_and_asked_again(store, caplog):
    """Bug guarded: a torn file was believed for ever, and every call died of it."""
    settle(store, "abd")
    merged = store.shard_file(0, 1)
    merged.write_bytes(merged.read_bytes()[:-40])
    journal(store, sets(("e", Outcome.ACCEPTED)))
    assert settle(store, "abde").pending == 3
    assert finished(store) == ["e"] and pending(store) == [["a", "b"], ["d"]]
    (aside,) = store.rows.glob("*.torn-*")
    assert merged.name in caplog.text and aside.name in caplog.text
    assert store.shards == 1


def test_a_file_that_is_torn_inside_is_set_aside_too(store):
    """In a column that is read when the file is written again, and not before."""
    samples = (Completion(text="eight " * 500, tokens=3),)
    journal(store, sets(("x", Outcome.ACCEPTED), completions=samples))
    settle(store, "abdx")
    merged = store.shard_file(0, 1)
    column = pq.ParquetFile(merged).metadata.row_group(0).column(5)
    assert column.path_in_schema.endswith("text")
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(merged.read_bytes())
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    merged.write_bytes(content)
    journal(store, sets(("e", Outcome.ACCEPTED)))
    assert settle(store, "abdxe").pending == 4
    assert finished(store) == ["e"]


def test_an_answer_counts_before_a_failure_of_the_same_request(tmp_path):
    """An asker of the killed call lived on and wrote its failure late."""
    store = RationaleStore(tmp_path)
    journal(store, sets(("a", Outcome.FAILED), attempts=4), call="1-killed")
    journal(store, sets(("a", Outcome.ACCEPTED)), call="2-this")
    assert settle(store, "a", ask_failed=False).outcomes == {"accepted": 1}
