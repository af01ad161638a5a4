"""The benchmarks at a size that shows nothing but that they work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("vote", "qcrd_step", "qcrd_naive", "startup")
# each trains, or starts vLLM or Ray Serve
SLOW = ("dss_step", "generate", "first_answer", "prefix_caching", "serve", "serve_latency")

pytestmark = pytest.mark.integration


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "bench.py", *arguments],
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in SLOW)]
)
def test_each_measures_something(name, tmp_path):
    """Guards a benchmark that a change of the package has broken."""
    out = ("--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"))
    printed = json.loads(bench(name, "--tiny", *out).splitlines()[-1])
    assert printed == json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert printed["targets"].keys() <= printed["figures"].keys()
    assert all(spread["max"] > 0 for spread in printed["figures"].values())
    table = bench("table", *out)
    assert all(f"| `{name}` | 1 | {figure} |" in table for figure in printed["figures"])
