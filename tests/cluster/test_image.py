"""The image of the nodes, as far as it can be made without Docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("debootstrap"), reason="needs root and debootstrap"
)
def test_every_instruction_runs_in_a_clean_debian(tmp_path):
    """A package of the system that the image forgets is missing here, as it would be there."""
    check = (
        "python -c 'import vllm, deepspeed, ctranslate2, ray.serve.llm' && qcrd --version && id -u"
    )
    arguments = ["LOCK=requirements-cpu.lock", "TORCH=https://pypi.org/simple", f"CHECK={check}"]
    replay = [sys.executable, "tests/support/replayed_image.py", "clusters/Dockerfile"]
    done = subprocess.run(
        ["unshare", "--mount", *replay, str(tmp_path / "image"), *arguments],
        cwd=ROOT,
        env=CLEAN,
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(tmp_path / "image", ignore_errors=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    *_, version, uid, whole = done.stdout.split("\n")[:-1]
    assert version.startswith("qcrd")
    assert (uid, whole) == ("1000", "whole")


def test_the_wheels_for_gpus_can_be_had(tmp_path):
    """A version that was taken back, or has no wheel for this Python, is seen before a build."""
    report = tmp_path / "report.json"
    asked = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"]
    asked += ["--ignore-installed", "--report", str(report), "-r", "requirements.lock"]
    done = subprocess.run(asked, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(report.read_text())["install"]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert len(found) == len(pinned)
    built = [e["metadata"]["name"] for e in found if not e["download_info"]["url"].endswith(".whl")]
    assert built == ["deepspeed"]  # its release has no wheel
