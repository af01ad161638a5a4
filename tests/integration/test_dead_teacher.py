"""A served teacher that dies for good, on real Ray Serve, with a replica that needs no vLLM."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ray import serve

from qcrd_ray.recipe import SamplingRecipe, ServeTeacher
from qcrd_ray.teacher import Stopped, TeacherError, TeacherRequest
from qcrd_ray.teacher import serve as served

pytestmark = pytest.mark.integration


@serve.deployment(
    name="teacher",
    autoscaling_config={"min_replicas": 1, "max_replicas": 1},
    ray_actor_options={"num_cpus": 0.1},
    max_constructor_retry_count=2,
    health_check_period_s=5.0,  # as the real one
)
class Fragile:
    """Answers until there is a file `broken`, and then neither answers nor starts."""

    def __init__(self, folder: str):
        self._broken = Path(folder) / "broken"
        if self._broken.exists():
            raise RuntimeError("CUDA out of memory")

    async def ask(self, prompts, sampling):
        if self._broken.exists():
            os._exit(1)
        return [{"prompt_tokens": 3, "samples": [("4", "stop", 1, "")] * 2} for _ in prompts]


def test_asking_ends_when_the_teacher_does_not_come_back(local_ray, tmp_path, monkeypatch):
    """Bugs guarded: a dead teacher was noticed by nobody, each request waited for its time limit,
    all questions failed one after another, and training went on with what there was.
    """
    monkeypatch.setattr(served, "deployment", lambda *_, **__: Fragile.bind(str(tmp_path)))
    teacher = served.ServedTeacher(
        ServeTeacher(source="serve", model="m", accelerator="cpu", replica={"cpus": 0.1}),
        SamplingRecipe(k=2),
        seed=0,
        application="dead-teacher",
        requests_in_flight=4,
        schedule_timeout_s=60.0,
    )
    requests = [TeacherRequest(None, "2 + 2?", samples=2)]

    async def ask_until_stopped() -> Stopped:
        (answer,) = await teacher.complete(requests)
        assert [each.text for each in answer.completions] == ["4", "4"]
        assert teacher.trouble() == ""
        (tmp_path / "broken").touch()
        with pytest.raises(TeacherError):  # the stage tries again
            await teacher.complete(requests)
        died = time.monotonic()
        with suppress(Stopped):  # at once, where the replacement has failed already
            while not await asyncio.to_thread(teacher.trouble):
                await asyncio.sleep(0.5)
        assert time.monotonic() - died < 30
        with pytest.raises(Stopped) as stopped:  # while the request waits for a replica
            await teacher.complete(requests)
        return stopped.value

    try:
        teacher.start()
        stopped = asyncio.run(ask_until_stopped())
    finally:
        teacher.stop()
    assert "does not start again" in str(stopped) and "CUDA out of memory" in str(stopped)
