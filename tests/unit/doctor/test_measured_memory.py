"""The doctor's estimates against what a process really holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).resolve().parents[3] / "jobs" / "measure_memory.py"


@pytest.mark.long
def test_estimates_are_within_a_quarter_of_what_is_measured():
    """Three shapes: an encoder-decoder, a decoder-only model, and one with checkpointing."""
    ran = subprocess.run([sys.executable, JOB], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(ran.stdout.splitlines()) == 3
