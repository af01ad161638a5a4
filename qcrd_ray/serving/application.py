"""The HTTP application: a Ray Serve deployment that batches what arrives together.

POST /v1/predict   a question, or a list of questions (``messages.Body``)
GET  /v1/task      how questions are written and read: the folder's task.json
GET  /healthz      200 once the student is loaded and warm
GET  /             a page to try the student on
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from ray import serve
from starlette.exceptions import HTTPException as StarletteHTTPException

from qcrd_ray import __version__
from qcrd_ray.serving import front_page
from qcrd_ray.serving.answering import Student
from qcrd_ray.serving.arguments import read_arguments
from qcrd_ray.serving.limits import BodyLimit
from qcrd_ray.serving.messages import MAX_BODY_BYTES, Body, Prediction, Query, explain_errors
from qcrd_ray.student_folder import StudentFolder

app = FastAPI(title="qcrd_ray student", version=__version__)
app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)


@app.exception_handler(RequestValidationError)
async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return _error(422, "the request is not what was expected", explain_errors(error.errors()))


@app.exception_handler(StarletteHTTPException)
async def _refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
    return _error(error.status_code, error.detail, [])


def _error(status: int, message: str, details: list[dict[str, str]]) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "details": details}}, status_code=status)


@serve.deployment(name="student")
@serve.ingress(app)
class StudentEndpoint:
    """One replica: the student of ``folder``, loaded and warmed up before it takes a request."""

    def __init__(self, folder: str, *, max_batch_size: int, batch_wait_s: float) -> None:
        self.student = Student(StudentFolder.open(Path(folder)), batch_size=max_batch_size)
        self._answer.set_max_batch_size(max_batch_size)
        self._answer.set_batch_wait_timeout_s(batch_wait_s)
        self.student.answer([Query(question="warm up", rationale=True, quality=self.student.judge is not None)])

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page(self) -> HTMLResponse:
        if not front_page.PAGE.is_file():
            raise HTTPException(404, "this installation has no page")
        html = front_page.PAGE.read_text(encoding="utf-8")
        return HTMLResponse(html, headers=front_page.headers(html))

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/task")
    async def describe(self) -> dict:
        return dict(self.student.folder.facts)

    @app.post("/v1/predict")
    async def predict(self, body: Body) -> Prediction | list[Prediction]:
        queries = body if isinstance(body, list) else [body]
        for number, query in enumerate(queries):
            if reason := self.student.refusal(query):
                where = f"question {number} of the list: " if isinstance(body, list) else ""
                raise HTTPException(422, f"{where}{reason}")
        predictions = list(await asyncio.gather(*(self._answer(query) for query in queries)))
        return predictions if isinstance(body, list) else predictions[0]

    @serve.batch
    async def _answer(self, queries: list[Query]) -> list[Prediction]:
        return await asyncio.to_thread(self.student.answer, queries)  # the event loop stays free for health checks


def build(args: Mapping[str, Any]) -> serve.Application:
    """The application for ``serve run qcrd_ray.serving.application:build student=<folder>``, ``serve deploy`` and KubeRay's RayService.

    ``args`` are `student` and the keys of the recipe's `serve` section, without host and port.

    Raises:
        UserError: names the key that is wrong.
    """
    folder, recipe = read_arguments(args)
    deployment = StudentEndpoint.options(
        num_replicas=recipe.replicas,
        max_ongoing_requests=2 * recipe.max_batch_size,  # one batch is answered while the next gathers
        max_queued_requests=recipe.max_queued_requests,
        ray_actor_options={
            "num_cpus": recipe.cpus_per_replica,
            "num_gpus": recipe.gpus_per_replica,
            "resources": recipe.resources_per_replica,
        },
    )
    return deployment.bind(str(folder.path), max_batch_size=recipe.max_batch_size, batch_wait_s=recipe.batch_wait_s)
