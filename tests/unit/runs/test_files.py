"""Atomic writes, and work that repeats in the background."""

from __future__ import annotations

import logging
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.runs.files import atomic_file, atomic_folder, write_table, write_text
from qcrd_ray.runs.periodic import periodically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestAtomic:
    def test_a_file_appears_at_the_end_of_the_block(self, tmp_path):
        path = tmp_path / "deep" / "a.bin"
        with atomic_file(path) as writing:
            writing.write_bytes(b"half")
            assert not path.exists()
        assert path.read_bytes() == b"half"
        assert names(path.parent) == ["a.bin"]

    def test_a_failed_write_keeps_the_old_file(self, tmp_path):
        path = tmp_path / "a.txt"
        write_text(path, "old")
        with pytest.raises(ZeroDivisionError), atomic_file(path) as writing:
            writing.write_text("half of the new")
            1 / 0  # noqa: B018
        assert path.read_text() == "old"
        assert names(tmp_path) == ["a.txt"]

    def test_a_table_is_written_whole(self, tmp_path):
        table = pa.table({"a": [1, 2]})
        write_table(table, tmp_path / "rows" / "a.parquet")
        assert pq.read_table(tmp_path / "rows" / "a.parquet").equals(table)

    def test_a_folder_replaces_the_old_one(self, tmp_path):
        for content in ("first", "second"):
            with atomic_folder(tmp_path / "model") as writing:
                (writing / content).write_text(content)
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["second"]

    def test_a_failed_folder_keeps_the_old_one(self, tmp_path):
        with atomic_folder(tmp_path / "model") as writing:
            (writing / "first").touch()
        with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "model") as writing:
            (writing / "second").touch()
            1 / 0  # noqa: B018
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["first"]

    def test_a_folder_that_cannot_take_its_name_keeps_the_old_one(self, tmp_path):
        with atomic_folder(tmp_path / "model") as writing:
            (writing / "first").touch()
        with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model") as writing:
            writing.rmdir()
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["first"]

    def test_a_folder_is_kept_that_a_process_killed_between_the_renames_left(self, tmp_path):
        (tmp_path / ".model.old").mkdir()
        (tmp_path / ".model.old" / "first").touch()
        with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "model"):
            1 / 0  # noqa: B018
        assert names(tmp_path / "model") == ["first"]
        with atomic_folder(tmp_path / "model") as writing:
            (writing / "second").touch()
        assert names(tmp_path) == ["model"]
        assert names(tmp_path / "model") == ["second"]

    def test_what_a_killed_process_left_is_cleared(self, tmp_path):
        (tmp_path / ".model.writing").mkdir()
        (tmp_path / ".model.writing" / "half").touch()
        with atomic_folder(tmp_path / "model") as writing:
            assert not list(writing.iterdir())
        assert names(tmp_path) == ["model"]


class TestPeriodically:
    def test_it_calls_while_the_block_runs_and_once_at_its_end(self):
        calls, twice = [], threading.Event()

        def work():
            calls.append(threading.current_thread())
            if len(calls) == 2:
                twice.set()

        with periodically(work, every_s=0.01):
            assert twice.wait(10)
        assert calls[-1] is threading.current_thread()
        assert threading.current_thread() not in calls[:-1]
        count = len(calls)
        threading.Event().wait(0.05)
        assert len(calls) == count

    def test_a_failed_call_is_logged_and_the_next_one_tried(self, caplog):
        calls, went_on = [], threading.Event()

        def work():
            calls.append(0)
            if len(calls) == 1:
                raise UserError("out of reach")
            if len(calls) == 2:
                raise OSError("broken")
            went_on.set()

        with caplog.at_level(logging.WARNING), periodically(work, every_s=0.01):
            assert went_on.wait(10)
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["out of reach", "background work failed"]

    def test_the_last_call_may_raise(self):
        def work():
            raise UserError("gone")

        with pytest.raises(UserError, match="gone"), periodically(work, every_s=60):
            pass

    def test_the_error_of_the_block_goes_first(self, caplog):
        def work():
            raise UserError("gone")

        with pytest.raises(ZeroDivisionError), periodically(work, every_s=60):
            1 / 0  # noqa: B018
        assert "gone" in caplog.text
