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
    Question,
    RationaleSet,
)
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.run.files import write_table
from qcrd_ray.run.folder import RunFolder


def rows(*pairs: tuple[str, Outcome], gold: str = "1") -> pa.Table:
    sets = [
        RationaleSet(id=id, question_id=f"q-{id}", question="?", gold=gold, outcome=outcome)
        for id, outcome in pairs
    ]
    return pa.Table.from_pylist([row.row() for row in sets], schema=RATIONALE_SET_SCHEMA)


def asks(ids: str, *, gold: str = "1") -> dict[str, Question]:
    return {id: Question(id=f"q-{id}", question="?", answer=gold) for id in ids}


def finished(store: RationaleStore) -> list[str]:
    return sorted(id for table in store.tables(["id"]) for id in table["id"].to_pylist())


def checkpointed(store: RationaleStore) -> list[str]:
    return sorted(
        id
        for file in store.checkpoint.glob("*.parquet")
        for id in pq.read_table(file)["id"].to_pylist()
    )


@pytest.fixture
def store(tmp_path) -> RationaleStore:
    """Two written files: a, b accepted; c failed, d unparsed."""
    store = RationaleStore(tmp_path)
    write_table(rows(("a", Outcome.ACCEPTED), ("b", Outcome.ACCEPTED)), store.rows / "one.parquet")
    write_table(rows(("c", Outcome.FAILED), ("d", Outcome.UNPARSED)), store.rows / "two.parquet")
    return store


def test_a_new_store_has_nothing_finished(tmp_path):
    store = RationaleStore(tmp_path)
    assert store.open(asks("abc")) == 0
    assert checkpointed(store) == []
    assert pq.read_table(store.requests)["id"].to_pylist() == ["a", "b", "c"]


def test_failed_rows_are_asked_again_and_the_others_are_not(store):
    assert store.open(asks("abcd")) == 3
    assert finished(store) == checkpointed(store) == ["a", "b", "d"]
    assert not store.stale.exists()


def test_a_file_of_failures_alone_goes(store):
    write_table(rows(("e", Outcome.FAILED)), store.rows / "three.parquet")
    store.open(asks("abcde"))
    assert not (store.rows / "three.parquet").exists()


def test_rows_of_changed_questions_are_set_aside_and_not_thrown_away(store):
    """They were paid for; but left among the rows they would be trained on and counted."""
    assert store.open(asks("bcd")) == 2
    assert finished(store) == ["b", "d"]
    assert pq.read_table(store.stale)["id"].to_pylist() == ["a"]


def test_a_mended_gold_answer_reaches_the_finished_row(store):
    assert store.open(asks("abd", gold="2")) == 3
    assert {gold for table in store.tables(["gold"]) for gold in table["gold"].to_pylist()} == {"2"}


def test_what_was_being_written_at_a_kill_is_dropped(store):
    """Ray Data writes a pending checkpoint, the rows, then renames the checkpoint. Killed between,
    the rows may be half a file.
    """
    store.checkpoint.mkdir()
    write_table(pa.table({"id": ["e"]}), store.checkpoint / "block7.pending.parquet")
    (store.rows / "block7.parquet").write_bytes(b"PAR1 half a file")
    assert store.open(asks("abcde")) == 3
    assert finished(store) == ["a", "b", "d"]
    assert list(store.checkpoint.glob("*pending*")) == []


def test_a_row_written_twice_counts_once(store):
    """An actor that dies after its block was written has the block processed again."""
    write_table(rows(("a", Outcome.ACCEPTED)), store.rows / "three.parquet")
    assert store.open(asks("abd")) == 3
    assert finished(store) == ["a", "b", "d"]


def test_a_lost_checkpoint_costs_nothing(store):
    """`rows/` alone decides: killed while the checkpoint is written anew, nothing is asked
    again.
    """
    store.open(asks("abd"))
    for file in store.checkpoint.glob("*"):
        file.unlink()
    assert store.open(asks("abd")) == 3


def test_opening_twice_changes_nothing(store):
    store.open(asks("abcd"))
    before = {file: file.read_bytes() for file in store.files()}
    assert store.open(asks("abcd")) == 3
    assert {file: file.read_bytes() for file in store.files()} == before


def test_rows_of_before_there_was_thinking_are_still_read(store, tmp_path):
    """Bug guarded: a column that came later made every older run folder unreadable."""
    place = RATIONALE_SET_SCHEMA.get_field_index("completions")
    older = pa.list_(pa.struct([field for field in COMPLETION_TYPE if field.name != "thinking"]))
    row = RationaleSet(
        id="e",
        question_id="q-e",
        question="?",
        completions=(Completion(text="8"),),
        outcome=Outcome.ACCEPTED,
        gold="1",
    )
    table = pa.Table.from_pylist(
        [row.row()], schema=RATIONALE_SET_SCHEMA.set(place, pa.field("completions", older))
    )
    split = RunFolder(tmp_path).rationales("train")
    old = RationaleStore(split)
    write_table(table, old.rows / "old.parquet")
    assert old.open(asks("e", gold="2")) == 1  # rewrites the row, as its gold answer was mended
    (read,) = RunFolder(tmp_path).read_rationales("train").to_pylist()
    assert (read["gold"], read["completions"][0]["text"], read["completions"][0]["thinking"]) == (
        "2",
        "8",
        None,
    )
