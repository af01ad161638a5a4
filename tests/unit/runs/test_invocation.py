"""A printed command is one that can be pasted where this process was called."""

import sys

import pytest

from qcrd_ray.runs.invocation import command


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a program in .venv/bin and a job script, where the shell finds nothing."""
    for file in (".venv/bin/qcrd", ".venv/bin/python"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
        (tmp_path / file).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    return tmp_path


@pytest.mark.parametrize(
    ("called", "on_path", "expected"),
    [
        (".venv/bin/qcrd", False, ".venv/bin/qcrd"),
        # `make demo` puts .venv/bin on a path that its caller's shell does not have
        (".venv/bin/qcrd", True, ".venv/bin/qcrd"),
        ("{place}/.venv/bin/qcrd", False, ".venv/bin/qcrd"),
        ("{place}/.venv/bin/qcrd", True, "qcrd"),
        ("jobs/run.py", False, ".venv/bin/python jobs/run.py"),
        ("jobs/run.py", True, "python jobs/run.py"),
        ("{place}/qcrd_ray/cli.py", True, "python -m qcrd_ray.cli"),
    ],
)
def test_a_command_names_the_program_as_it_was_called(
    called, on_path, expected, place, monkeypatch
):
    if on_path:
        monkeypatch.setenv("PATH", str(place / ".venv/bin"))
    monkeypatch.setattr(sys, "argv", [called.format(place=place), "run", "recipe.yaml"])
    assert command("serve", place / "runs/x") == f"{expected} serve runs/x"


def test_paths_are_quoted_and_those_elsewhere_are_whole(place, monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/qcrd"])
    assert command("serve", place / "my run") == ".venv/bin/qcrd serve 'my run'"
    elsewhere = place.parent / "x"
    assert command("serve", elsewhere) == f".venv/bin/qcrd serve {elsewhere}"
