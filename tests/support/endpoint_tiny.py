"""The endpoint's application around a tiny student, in this process: everything but Ray."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import torch
from starlette.testclient import TestClient

from qcrd_ray.inference.answering import Student
from qcrd_ray.inference.evidence import feature_names
from qcrd_ray.method.judge import Judge
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.health import Health
from qcrd_ray.serving.metrics import Metrics, exposition
from qcrd_ray.serving.routes import make_app
from qcrd_ray.serving.service import Service

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"


def load(folder: Path) -> Student:
    return Student(StudentFolder.open(folder))


def with_judge(exported: Path, folder: Path, *, inputs=("student", "label", "steps")) -> Path:
    """A copy of an exported student in ``folder``, with a random judge of votes of 4 samples.

    The base of a judge that asks one is the student itself.
    """
    shutil.copytree(exported, folder)
    torch.manual_seed(0)
    judge = Judge(feature_names(inputs), hidden=4)
    judge.slope, judge.offset = 2.0, -1.0
    judge.save(folder / "judge", inputs=list(inputs), samples=4, temperature=1.5, top_p=0.9)
    if "base" in inputs:
        shutil.copytree(exported, folder / "judge" / "base")
    return folder


def client(student: Student, *, key: str | None = None, write=None, **recipe) -> TestClient:
    """A client of a replica that answers one ask at a time. ``write`` takes the student's place: a
    function of one list of asks.
    """
    metrics, health, work = Metrics(), Health(stuck_after_s=60), write or student.generate

    async def write_one(ask):
        return (await health.run("write", partial(work, [ask])))[0]

    async def score_one(judged):
        return (await health.run("score", partial(student.score, [judged])))[0]

    async def scrape():
        return exposition({"one": metrics.families()})

    async def judge_one(request):
        return (await health.run("judge", partial(student.judge_samples, [request])))[0]

    service = Service(
        student,
        ServingRecipe(**recipe),
        write=write_one,
        score=score_one,
        judge=judge_one,
        metrics=metrics,
    )
    return TestClient(
        make_app(service, key=key, trouble=lambda: health.trouble, scrape=scrape),
        base_url="http://localhost:8000",
        raise_server_exceptions=False,
    )
