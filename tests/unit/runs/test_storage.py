"""A run folder at a URI: what another machine finds there is whole, whatever moment the first one
was killed at.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time

import pytest
import s3_server
from recipe_tiny import recipe

from qcrd_ray.errors import UserError
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.storage import STATE, TOKEN, Mirror, redacted, work_folder


@pytest.fixture
def uri(tmp_path) -> str:
    return f"file://{tmp_path}/store/run"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that makes this process work on another machine: one with another work folder."""

    def use(name: str) -> None:
        monkeypatch.setenv("QCRD_WORK", str(tmp_path / name))

    use("first")
    return use


def files(folder) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("[!.]*"))
        if path.is_file()
    }


def test_another_machine_goes_on_where_the_first_stopped(uri, machine, tmp_path):
    first = RunFolder.open(recipe(uri))
    with first.in_step():
        write_text(first.rationales("train") / "rows" / "a.parquet", "rows")
        write_text(first.rationales("train") / "manifest.json", "{}")
    machine("second")
    second = RunFolder.open(recipe(uri))
    assert second.root != first.root
    assert files(second.root / "rationales") == {
        "train/manifest.json": "{}",
        "train/rows/a.parquet": "rows",
    }
    assert len(json.loads(second.versions.read_text())) == 2


def test_changes_and_deletions_follow_and_nothing_else_is_sent(uri, machine, tmp_path):
    folder = RunFolder.open(recipe(uri))
    for name in ("kept", "changed", "deleted"):
        write_text(folder.root / "train" / name, "old")
    folder.push()
    there = tmp_path / "store" / "run" / "train"
    sent_at = (there / "kept").stat().st_mtime_ns
    write_text(folder.root / "train" / "changed", "new")
    (folder.root / "train" / "deleted").unlink()
    (folder.root / "train" / ".half-written").write_text("half")
    folder.push()
    assert files(there) == {"kept": "old", "changed": "new"}
    assert not (there / ".half-written").exists()
    assert (there / "kept").stat().st_mtime_ns == sent_at


def test_an_error_in_the_block_is_told_and_the_work_so_far_is_pushed(uri, machine, tmp_path):
    folder = RunFolder.open(recipe(uri))
    with pytest.raises(ZeroDivisionError), folder.in_step():
        write_text(folder.root / "paid for", "much")
        raise ZeroDivisionError
    assert (tmp_path / "store" / "run" / "paid for").exists()


def test_pushes_go_on_while_a_stage_runs(uri, machine, tmp_path):
    """Bug guarded: a run that is killed with SIGKILL inside its longest stage would leave nothing
    of it.
    """
    folder = RunFolder.open(recipe(uri))
    with folder.mirror.in_step(every_s=0.05):
        write_text(folder.root / "rows", "some")
        deadline = time.monotonic() + 20
        while not (tmp_path / "store" / "run" / "rows").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_half_a_push_does_not_look_like_a_finished_stage(uri, machine, tmp_path):
    """Files go in the order of their writing and JSON last, and an old result leaves before what it
    spoke of changes.
    """
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "train" / "result.json", "old")
    folder.push()
    (folder.root / "train" / "result.json").unlink()
    for number, name in enumerate(("z-first", "manifest.json", "a-second", "y-blocked")):
        write_text(folder.root / "train" / name, name)
        os.utime(folder.root / "train" / name, (1_000 + number, 1_000 + number))
    (tmp_path / "store" / "run" / "train" / "y-blocked").mkdir()  # the store refuses this one
    folder.push()  # no end of a run for it: a store may be out of reach for a minute
    with pytest.raises(UserError, match="cannot write"):
        folder.mirror.push()
    there = tmp_path / "store" / "run" / "train"
    assert files(there) == {"z-first": "z-first", "a-second": "a-second"}
    (there / "y-blocked").rmdir()
    folder.push()
    assert files(there).keys() == {"z-first", "a-second", "y-blocked", "manifest.json"}


@pytest.mark.parametrize("name", ["rows", "manifest.json"])
def test_a_file_that_disappears_while_it_is_pushed_is_no_error(uri, machine, name):
    """Stages rename and delete while the thread looks."""
    mirror = RunFolder.open(recipe(uri)).mirror
    mirror._upload(name, (1, 1))
    assert name not in mirror.listing()


def test_json_that_changed_meanwhile_waits_for_what_it_speaks_of(uri, machine):
    """Bug guarded: the list of checkpoints went out with a name in it that was written after the
    push had looked for files.
    """
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "train" / "checkpoints.json", "one")
    folder.mirror._upload("train/checkpoints.json", (3, 1))  # as it was listed, a moment ago
    assert "train/checkpoints.json" not in folder.mirror.listing()
    folder.push()
    assert folder.mirror.read("train/checkpoints.json") == b"one"


def test_a_killed_run_keeps_what_it_had_not_pushed(uri, machine):
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "paid for", "much")  # and SIGKILL
    again = RunFolder.open(recipe(uri))
    assert (again.root / "paid for").read_text() == "much"
    again.push()
    assert "paid for" in again.mirror.listing()


def test_what_a_torn_push_sent_is_not_left_behind(uri, machine):
    """Bug guarded: a file that was sent by a push which was killed, and deleted since, stayed at
    the URI for ever.
    """
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "rows", "old")
    folder.mirror._upload("rows", (3, 1))  # and SIGKILL, before the push could note it
    assert "rows" in folder.mirror.listing()
    (folder.root / "rows").unlink()
    again = RunFolder.open(recipe(uri))
    assert "rows" not in again.mirror.listing()


def test_what_others_did_meanwhile_comes_before_an_old_work_folder(uri, machine):
    first = RunFolder.open(recipe(uri))
    write_text(first.root / "old", "x")
    first.push()
    machine("second")
    second = RunFolder.open(recipe(uri))
    (second.root / "old").unlink()
    write_text(second.root / "new", "y")
    second.push()
    machine("first")
    assert (first.root / "old").exists()
    again = RunFolder.open(recipe(uri))
    assert again.root == first.root
    assert not (again.root / "old").exists() and (again.root / "new").read_text() == "y"


@pytest.mark.parametrize("moment", ["before the token", "behind the token"])
def test_a_restart_that_dies_keeps_what_was_not_pushed(uri, machine, monkeypatch, moment):
    """Bug guarded: killed between writing its token at the URI and noting it, the next run took
    the folder for an old one, and deleted rows that were paid for.
    """
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "paid for", "much")  # and SIGKILL
    write = Mirror._write

    def killed(self, name, content):
        if name == TOKEN:
            if moment == "behind the token":
                write(self, name, content)
            raise KeyboardInterrupt
        write(self, name, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Mirror, "_write", killed)
        RunFolder.open(recipe(uri))
    again = RunFolder.open(recipe(uri))
    assert (again.root / "paid for").read_text() == "much"


def test_what_was_not_pushed_is_kept_when_another_machine_went_on(uri, machine, caplog):
    folder = RunFolder.open(recipe(uri))
    write_text(folder.root / "pushed", "x")
    folder.push()
    write_text(folder.root / "paid for", "much")
    machine("second")
    RunFolder.open(recipe(uri))
    machine("first")
    again = RunFolder.open(recipe(uri))
    assert not (again.root / "paid for").exists() and (again.root / "pushed").exists()
    (aside,) = again.root.parent.glob("*.unpushed-*")
    assert (aside / "paid for").read_text() == "much" and str(aside) in caplog.text


def test_a_run_that_was_overtaken_stops_pushing(uri, machine):
    first = RunFolder.open(recipe(uri))
    machine("second")
    RunFolder.open(recipe(uri))
    write_text(first.root / "late", "x")
    with pytest.raises(UserError, match="another run has opened"):
        first.push()
    assert "late" not in first.mirror.listing()


def test_a_fetch_that_was_cut_short_is_begun_again(uri, machine):
    first = RunFolder.open(recipe(uri))
    write_text(first.root / "rows", "all")
    first.push()
    machine("second")
    half = work_folder(uri)
    half.mkdir(parents=True)
    (half / STATE).write_text(json.dumps({"token": None, "pushed": {}}))
    (half / "rows").write_text("al")
    assert (RunFolder.open(recipe(uri)).root / "rows").read_text() == "all"


def test_a_uri_that_was_emptied_is_begun_anew(uri, machine, tmp_path):
    """Bug guarded: a work folder left over from the deleted run would come back as the new one."""
    write_text(RunFolder.open(recipe(uri)).root / "old", "x")
    shutil.rmtree(tmp_path / "store")
    assert not (RunFolder.open(recipe(uri, seed=3)).root / "old").exists()


def test_another_recipe_is_refused_before_anything_is_fetched(uri, machine):
    RunFolder.open(recipe(uri))
    machine("second")
    with pytest.raises(
        UserError, match=r"file://.*/store/run was made by another recipe:\n  seed: 0 there, 7 now"
    ):
        RunFolder.check(recipe(uri, seed=7))
    assert not work_folder(uri).exists()


def test_a_place_of_something_else_is_not_taken_over(uri, machine, tmp_path):
    (tmp_path / "store" / "run").mkdir(parents=True)
    (tmp_path / "store" / "run" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is no run folder"):
        RunFolder.open(recipe(uri))


def test_a_work_folder_of_something_else_is_not_deleted(uri, machine):
    work_folder(uri).mkdir(parents=True)
    (work_folder(uri) / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="QCRD_WORK"):
        RunFolder.open(recipe(uri))
    assert (work_folder(uri) / "thesis.tex").exists()


@pytest.mark.parametrize(
    "given",
    [
        "s3://id:hunter2@bucket/run",
        "s3://id:hun/hunter2@bucket/run",  # bug guarded: a slash ended the search for a password
        "abfs://box/run?account_key=hunter2",
    ],
)
def test_keys_in_a_uri_are_refused_and_not_repeated(given, machine, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(UserError) as refused:
        RunFolder.check(recipe(given))
    assert "hunter2" not in str(refused.value) + caplog.text + redacted(given)


def test_an_unknown_store_is_named(machine):
    with pytest.raises(UserError, match=r"run: cannot open ftp://host/run"):
        RunFolder.check(recipe("ftp://host/run"))


def test_the_work_folder_does_not_depend_on_how_the_store_is_reached(machine):
    assert work_folder("s3://bucket/run/") == work_folder("s3://bucket/run?region=eu-west-1")
    assert work_folder("s3://bucket/run") != work_folder("s3://bucket/other")


class TestS3:
    """The same on a real S3 API: a server of its own, asked by the S3 client that comes with
    Arrow.
    """

    @pytest.fixture
    def bucket(self, machine, monkeypatch):
        with s3_server.bucket(monkeypatch) as uri:
            yield uri

    def test_the_whole_way(self, bucket, machine, caplog):
        caplog.set_level(logging.DEBUG)
        first = RunFolder.open(recipe(bucket))
        with first.in_step():
            write_text(first.rationales("train") / "rows" / "a.parquet", "r" * 100_000)
            write_text(first.rationales("train") / "manifest.json", "{}")
        (first.rationales("train") / "manifest.json").unlink()
        first.push()
        machine("second")
        second = RunFolder.open(recipe(bucket))
        assert files(second.root / "rationales") == {"train/rows/a.parquet": "r" * 100_000}
        with pytest.raises(UserError, match="another run has opened s3://bucket/runs/demo since"):
            first.push()
        assert s3_server.SECRET not in caplog.text + "".join(files(second.root).values())

    def test_a_bucket_that_is_not_there_is_told_before_a_run(self, bucket):
        with pytest.raises(UserError, match=r"run: cannot write s3://nowhere/runs/demo: "):
            RunFolder.check(recipe(bucket.replace("//bucket", "//nowhere")))
