"""The example of the Python API runs as it stands, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(1_800)
def test_the_example_runs_from_questions_to_answers(tmp_path):
    environment = {name: value for name, value in os.environ.items() if "RAY_A" not in name}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "in_python.py", tmp_path],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1_700,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    shown = done.stdout.splitlines()
    assert any(line.startswith("student, rationale: ") for line in shown), shown
    assert len(shown[-2:]) == 2 and all(": " in line for line in shown[-2:])
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
