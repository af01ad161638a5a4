"""A full disk is told as such, wherever it was met."""

from __future__ import annotations

import sys

import pytest
from ray.exceptions import RayTaskError

from qcrd_ray import cli
from qcrd_ray.runs.disk import full_disk


def met() -> OSError:
    """A real one."""
    with pytest.raises(OSError, match="No space left") as raised, open("/dev/full", "w") as file:
        file.write("x" * 10_000)
    return raised.value


def test_it_is_found_behind_other_errors():
    error = met()
    assert "No space left on device" in full_disk(error)
    try:
        try:
            raise error
        except OSError:
            raise RuntimeError("the checkpoint could not be written") from None
    except RuntimeError as behind:
        assert full_disk(behind) is not None
    from_worker = RayTaskError("f", f"Traceback ...\n  File x\n{error}\n", error)
    assert full_disk(from_worker) is not None
    words_only = RuntimeError(f"worker 0 failed:\n  File x\nOSError: {error}\n")
    assert full_disk(words_only) == f"OSError: {error}"
    assert full_disk(ValueError("No space for jokes")) is None


def test_the_command_ends_with_it_and_no_traceback(monkeypatch, capsys):
    """Bug guarded: a full disk ended in a traceback of Ray's."""

    def run():
        raise met()

    monkeypatch.setattr(cli, "app", run)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 1
    assert "a disk is full" in said.out + said.err and "same command goes on" in said.out + said.err
