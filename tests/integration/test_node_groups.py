"""The stages on nodes of several groups: a recipe's ties reach every process that a stage
starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
@pytest.mark.integration
def test_every_process_is_placed_in_its_stages_group(tmp_path):
    """Bug guarded: a key of the recipe that sums are made with, and that the stage's own request to
    Ray forgets. In a process of its
    own, because a test session is connected to one Ray only.
    """
    script = Path(__file__).parents[1] / "support" / "tied_stages.py"
    walked = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=280
    )
    assert walked.returncode == 0, walked.stderr[-3000:]
    placed = json.loads(next(line for line in walked.stdout.splitlines() if line.startswith("{")))
    assert placed["MapWorker(MapBatches(BlockAnswerer))"] == ["data"]
    assert placed["ProgressCounter"] == ["data"]
    assert placed["RayTrainWorker"] == placed["_SamplerActor"] == placed["Evaluator"] == ["trainer"]
    assert placed["ServeReplica:qcrd-student:student"] == ["data"]
