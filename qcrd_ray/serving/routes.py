"""The HTTP application around a student: its routes and its middleware. No Ray here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Body as FromBody
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, Response
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from qcrd_ray import __version__
from qcrd_ray.serving import docs_page, front_page, http_errors, openai_api
from qcrd_ray.serving.admission import Admission, SizeLimits
from qcrd_ray.serving.auth import BearerAuth
from qcrd_ray.serving.bounded_json import BoundedRoute
from qcrd_ray.serving.hosts import KnownHosts
from qcrd_ray.serving.http_errors import ErrorBody, RequestError
from qcrd_ray.serving.messages import EXAMPLES, Body, PredictResponse
from qcrd_ray.serving.metrics import RequestMetrics
from qcrd_ray.serving.service import Service

OPEN_PATHS = ("/", "/healthz", "/health")  # answered without the key
DESCRIPTION = """
A student model: it answers a question (the label), explains its answer (the rationale), and a
discriminator scores the explanation (the quality). Several sampled explanations can vote, each
weighed by a judge where the student has one.

* **503** means that too much is waiting; try again after `Retry-After` seconds. **504** means that
  an answer took too long.
* A wrong request is answered with what was expected: **422** here, **400** on the OpenAI-compatible
  routes.
* The body must come whole within some seconds (**408**), and bodies, URLs and headers are limited
  (**413**, **414**, **431**).
* With a key configured every route but `/`, `/healthz` and `/health` needs `Authorization: Bearer
  <key>`, and answers **401** without it.
"""


def make_app(
    service: Service,
    *,
    key: str | None,
    trouble: Callable[[], str],
    scrape: Callable[[], Awaitable[bytes]],
    title: str = "qcrd_ray student",
) -> FastAPI:
    """The application.

    Args:
        key: the bearer key that callers must send; None accepts every caller.
        trouble: returns why the model cannot answer now, or "".
        scrape: returns the metrics of all replicas, in Prometheus's text format.
    """
    app = FastAPI(
        title=title,
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # these pages load their scripts from elsewhere; see docs_page
        redoc_url=None,
        responses={401: {"model": ErrorBody}} if key else None,
        # for the description alone; BearerAuth checks the key
        dependencies=[Depends(HTTPBearer(auto_error=False))] if key else [],
    )
    app.router.route_class = BoundedRoute
    http_errors.install(app, bad_request_under=openai_api.PATHS)
    _add_routes(app, service, trouble=trouble, scrape=scrape)
    app.include_router(openai_api.make_router(service))
    routes = [*app.openapi()["paths"], "/", "/docs", "/health", app.openapi_url]
    recipe = service.recipe
    # the last one added is the first that a request meets: nothing waits before its key is read
    app.add_middleware(
        Admission,
        places=recipe.max_queued_requests,
        max_bytes=recipe.max_body_bytes,
        body_timeout_s=recipe.body_timeout_s,
    )
    if key:
        app.add_middleware(BearerAuth, key=key, open_paths=OPEN_PATHS)
    if key is None or recipe.allowed_hosts:
        app.add_middleware(KnownHosts, names=recipe.allowed_hosts)
    app.add_middleware(SizeLimits)
    app.add_middleware(RequestMetrics, metrics=service.metrics, routes=routes)
    return app


def _add_routes(
    app: FastAPI,
    service: Service,
    *,
    trouble: Callable[[], str],
    scrape: Callable[[], Awaitable[bytes]],
) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        if not front_page.PAGE.is_file():
            raise HTTPException(404, "this installation has no page")
        html = front_page.PAGE.read_text(encoding="utf-8")
        return HTMLResponse(html, headers=front_page.headers(html))

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> HTMLResponse:
        html = docs_page.render(app.openapi())
        return HTMLResponse(html, headers=front_page.headers(html))

    @app.get("/health", include_in_schema=False)
    @app.get("/healthz", responses={503: {"model": ErrorBody}})
    async def healthz() -> dict[str, str]:
        """200 while the student is loaded, warmed up and answering.

        `/health`, as vLLM has it, is the same. `/-/healthz` answers for Ray Serve itself.
        """
        if reason := trouble():
            raise RequestError(503, reason, headers=http_errors.RETRY)
        return {"status": "ok"}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Requests, latencies, batches and tokens of every replica, in Prometheus's text format.

        Each sample has the label `replica`.
        """
        return Response(await scrape(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/v1/task")
    async def task() -> dict[str, Any]:
        """How questions are written and read.

        The student folder's task.json, questions to try (`to_try`), whether rationales can be
        scored (`quality`), and the vote that the folder's judge is calibrated for (`judge`; null:
        there is none).
        """
        return {
            **service.student.folder.facts,
            "to_try": service.examples,
            "quality": service.student.scorer is not None,
            "judge": service.usual_vote,
        }

    @app.post(
        "/v1/predict",
        responses={status: {"model": ErrorBody} for status in (400, 408, 413, 422, 503, 504)},
    )
    async def predict(
        body: Annotated[Body, FromBody(openapi_examples=EXAMPLES)],
    ) -> PredictResponse | list[PredictResponse]:
        """Answer one question, or a list of questions in their order."""
        if isinstance(body, list):
            return await service.predict(body)
        return (await service.predict([body]))[0]
