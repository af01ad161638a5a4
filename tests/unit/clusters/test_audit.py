"""`make audit` fails on what nobody has judged, also where the database did not answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_spec = importlib.util.spec_from_file_location("audit", ROOT / "clusters" / "audit.py")
assert _spec is not None and _spec.loader is not None
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

# as pip-audit 2.10 writes it
REPORT = {
    "dependencies": [
        {"name": "clean", "version": "1.0", "vulns": []},
        {
            "name": "ray",
            "version": "2.60.0",
            "vulns": [
                {"id": "PYSEC-1", "fix_versions": [], "aliases": ["CVE-1", "GHSA-a"]},
                {"id": "PYSEC-2", "fix_versions": ["3.0"], "aliases": []},
            ],
        },
        {"name": "odd", "skip_reason": "odd 1.0 could not be found"},
    ],
    "fixes": [],
}


def test_what_is_not_accepted_or_not_known_must_be_mended():
    wrong, known = audit.judge(
        REPORT, {("ray", "GHSA-a"): "not reached", ("other", "PYSEC-2"): "x"}
    )
    assert wrong == [
        "ray 2.60.0: PYSEC-2, mended in 3.0",
        "odd: nothing is known of it: odd 1.0 could not be found",
    ]
    assert known == ["ray 2.60.0: PYSEC-1, CVE-1, GHSA-a: accepted: not reached"]


@pytest.mark.parametrize(
    "entry", ['package = "ray"\nid = "X"', 'package = "ray"\nid = "X"\nreason = " "']
)
def test_nothing_is_accepted_without_a_reason(entry):
    with pytest.raises(ValueError, match="a reason"):
        audit.read_accepted(f"[[accepted]]\n{entry}")


def test_what_is_accepted_is_locked():
    """An entry for a package that has left the locks is dead."""
    accepted = audit.read_accepted(audit.ACCEPTED.read_text())
    pins = "".join((ROOT / lock).read_text() for lock in audit.LOCKS)
    assert accepted and all(f"\n{package}==" in pins for package, _ in accepted)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (json.dumps(REPORT), 1),
        (json.dumps({"dependencies": REPORT["dependencies"][:1]}), 0),
        ("", 1),  # the database is out of reach
    ],
)
def test_the_exit_status(answer, status, monkeypatch, capsys):
    asked = []

    def run(call, **options):
        asked.append(call)
        return subprocess.CompletedProcess(call, 1, stdout=answer, stderr="ERROR: no network")

    monkeypatch.setattr(audit.subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["audit.py"])
    assert audit.main() == status
    assert [Path(call[call.index("--requirement") + 1]).name for call in asked] == [*audit.LOCKS]
    assert ("no network" in capsys.readouterr().out) == (not answer)
