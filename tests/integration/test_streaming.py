"""Streams through real Ray Serve: tokens come as they are written, a hang-up ends the writing."""

from __future__ import annotations

import re
import time
import urllib.request
from pathlib import Path

import openai
import pytest
import ray

from qcrd_ray import serving
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.endpoint import APP

pytestmark = pytest.mark.integration

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"
ASK = {"model": "student", "messages": [{"role": "user", "content": QUESTION}]}
LONG = 5_000  # tokens, of a student that repeats itself: many seconds


@pytest.fixture(scope="module")
def url(local_ray, exported_student):
    recipe = ServingRecipe(port=0, engine="transformers", max_output_tokens=LONG)
    yield serving.start(exported_student, recipe)
    serving.stop()


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as opened:
        yield opened


def in_progress(url) -> float:
    """Requests in the replica beside the one that asks."""
    with urllib.request.urlopen(url + "/metrics", timeout=30) as response:
        text = response.read().decode()
    (number,) = re.findall(r"^qcrd_requests_in_progress\{.*\} (\S+)$", text, re.MULTILINE)
    return float(number) - 1


def seconds_until_idle(url, client) -> float:
    """Until no request is in the replica, and the engine answers another caller."""
    started = time.monotonic()
    while in_progress(url):
        assert time.monotonic() - started < 60
        time.sleep(0.05)
    client.completions.create(model="student", prompt=QUESTION, max_tokens=1)
    return time.monotonic() - started


def test_tokens_come_while_others_are_written_and_a_hang_up_ends_it(url, client):
    """Bugs guarded: a stream that began when its text was whole; a text that was written to its end
    for a caller who had left; the traceback of each hang-up.
    """
    started = time.monotonic()
    with client.chat.completions.create(**ASK, max_tokens=200, stream=True) as stream:
        times = [time.monotonic() - started for chunk in stream if chunk.choices[0].delta.content]
    assert len(times) > 20 and times[0] < times[-1] / 2, "they came at once"
    each_s = (times[-1] - times[0]) / len(times)
    whole_s = each_s * LONG
    assert whole_s > 4, "this machine is too fast for the test: raise LONG"

    stream = client.chat.completions.create(**ASK, stream=True)
    for _ in range(5):
        next(stream)
    assert in_progress(url) == 1
    stream.close()
    assert seconds_until_idle(url, client) < whole_s / 2

    with pytest.raises(openai.APITimeoutError):  # one that is no stream
        client.with_options(timeout=1).chat.completions.create(**ASK)
    assert seconds_until_idle(url, client) < whole_s / 2

    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"
    files = [*logs.glob("proxy_*.log"), *logs.glob(f"replica_{APP}_*.log")]
    told = "".join(path.read_text() for path in files)
    assert "/v1/chat/completions" in told
    assert "Traceback" not in told, told[told.index("Traceback") - 500 :][:3_000]
