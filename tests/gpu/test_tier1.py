"""What one GPU proves with torch and transformers alone: `make gpu-test`, or on a bare machine

    python -m pytest tests/gpu/test_tier1.py -m gpu -s

At full size, under 20 minutes on one large GPU. The results are kept as lines of JSON under
jobs/recipes/results/gpu/. tests/unit/gpu runs the same checks at tiny sizes on a CPU.
"""

from __future__ import annotations

import os

import pytest
import torch
from gpu_checks import CHECKS, run_check

# so that a repeat is identical; cuBLAS reads it when it is first used
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_on_the_gpu(name):
    if name == "training":
        pytest.importorskip("pydantic", reason="the built-in questions are read with pydantic")
    result = run_check(name, torch.device("cuda"))
    assert result["passed"], result
