"""The checks of `make gpu-test` at tiny sizes on a CPU, so that the first GPU finds no typing
error, and that they need neither Ray nor vLLM nor DeepSpeed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gpu_checks
import pytest
import torch
from gpu_checks import CHECKS, FULL, TINY, keep, run_check

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_runs_and_passes_on_a_cpu(name, capsys):
    result = run_check(name, torch.device("cpu"))
    assert result["passed"], result
    assert json.loads(capsys.readouterr().out)["check"] == name
    assert FULL[name].keys() == TINY[name].keys()


def test_results_of_a_gpu_are_kept_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_checks, "RESULTS", tmp_path)
    for passed in (True, False):
        keep({"check": "speed", "device": "NVIDIA H200", "passed": passed})
    keep({"check": "speed", "device": "cpu", "passed": True})
    lines = (tmp_path / "nvidia-h200.jsonl").read_text().splitlines()
    assert [json.loads(line)["passed"] for line in lines] == [True, False]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_checks_import_no_library_that_a_bare_machine_lacks():
    """Bug guarded: `import ray.train` at the head of a module that training shares."""
    blocked = ("ray", "vllm", "deepspeed", "datasets", "ctranslate2", "typer")
    program = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(SUPPORT)!r})
import gpu_checks, gpu_speed, gpu_training
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=500)


def test_training_s_modules_import_without_ray():
    """A training in one process needs no Ray: the workers' modules import it where they use it."""
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "vllm", "deepspeed"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import qcrd_ray.training.worker
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=500)
