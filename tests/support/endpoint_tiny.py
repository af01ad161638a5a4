"""The endpoint's application around a tiny student, in this process: everything but Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from starlette.testclient import TestClient

from qcrd_ray.inference.answering import Student
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.health import Health
from qcrd_ray.serving.metrics import Metrics, exposition
from qcrd_ray.serving.routes import make_app
from qcrd_ray.serving.service import Service

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"


def load(folder: Path) -> Student:
    return Student(StudentFolder.open(folder))


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

    service = Service(
        student, ServingRecipe(**recipe), write=write_one, score=score_one, metrics=metrics
    )
    return TestClient(
        make_app(service, key=key, trouble=lambda: health.trouble, scrape=scrape),
        raise_server_exceptions=False,
    )
