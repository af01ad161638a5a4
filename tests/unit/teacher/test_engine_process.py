"""What a served teacher's start on CPUs takes of vLLM's inside is still there.

A failure here is no reason to keep the old vLLM: read engine_process.py beside the new one, and see
whether it can be told to fork from a server by now.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def source(module: str) -> str:
    spec = find_spec("vllm")
    assert spec is not None and spec.origin is not None
    return (Path(spec.origin).parent / f"{module.replace('.', '/')}.py").read_text()


def test_the_engine_comes_from_a_context_that_can_be_replaced():
    assert "context = get_mp_context()" in source("v1.engine.utils")
    assert "context.Process(" in source("v1.engine.utils")
    assert "class EngineCoreProc(" in source("v1.engine.core")
    assert "class CPUWorker(" in source("v1.worker.cpu_worker")


def test_no_setting_forks_it_from_a_server_yet():
    assert '"VLLM_WORKER_MULTIPROC_METHOD", "fork", ["spawn", "fork"]' in source("envs")
