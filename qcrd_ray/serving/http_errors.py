"""The endpoint's errors: one body for all routes, which OpenAI's clients read too.

    {"error": {"message": ..., "type": ..., "param": ..., "code": ...,
               "details": [{"where": ..., "expected": ...}]}}

The message says what was expected. What was sent is not echoed, but for the name of an unknown
field where that is a short plain word. Of many mistakes the first few are told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

logger = logging.getLogger("ray.serve")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    500: "server_error",
    503: "overloaded_error",
    504: "timeout_error",
}
RETRY_AFTER_S = 1
RETRY = {"Retry-After": str(RETRY_AFTER_S)}  # the headers of an error that may pass by itself
CALLER_LEFT = 499  # the caller closed the connection; not the endpoint's failure
MAX_DETAILS = 5
MAX_NAME = 40  # characters of a field's name in an error


class Detail(BaseModel):
    """One thing that was wrong."""

    where: str
    expected: str


class ErrorFacts(BaseModel):
    """What went wrong.

    `message` and `details` are for people; `type`, `param` and `code` are for programs.
    """

    message: str
    type: str = "invalid_request_error"
    param: str | None = Field(default=None, description="the field that is wrong")
    code: str | None = None
    details: list[Detail] = []


class ErrorBody(BaseModel):
    """The body of every error answer."""

    error: ErrorFacts


class RequestError(HTTPException):
    """An HTTP error answer, raised where the mistake is noticed.

    It is one of Starlette's, because FastAPI makes a 400 of its own of anything else that is raised
    while it reads a body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Sequence[Detail] = (),
    ) -> None:
        super().__init__(status, message, headers)
        self.param, self.code, self.details = param, code, details

    @classmethod
    def at(cls, status: int, path: Sequence[str | int], expected: str) -> RequestError:
        """A wrong field: ``path`` leads to it from the body, ``expected`` is what it should be."""
        detail = Detail(where=_where(path), expected=expected)
        where = detail.where.removeprefix("body.")
        return cls(
            status,
            f"the request is not what was expected: {where}: {expected}",
            param=where.split(".")[0],
            details=[detail],
        )

    def response(self) -> JSONResponse:
        """The response that carries this error."""
        return _respond(
            self.status_code,
            str(self.detail),
            param=self.param,
            code=self.code,
            details=self.details,
            headers=self.headers,
        )


def install(app: FastAPI, *, bad_request_under: Sequence[str]) -> None:
    """Have ``app`` answer every error with :class:`ErrorBody`.

    Args:
        bad_request_under: the paths on which wrong input is 400, as OpenAI has it, and not 422.
    """

    @app.exception_handler(RequestError)
    async def request_error(request: Request, error: RequestError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid_input(request: Request, error: RequestValidationError) -> JSONResponse:
        details = [
            Detail(where=_where(mistake["loc"]), expected=mistake["msg"])
            for mistake in error.errors()[:MAX_DETAILS]
        ]
        # a web page can post anything else to a loopback unasked
        if "json" not in request.headers.get("content-type", ""):
            return _respond(
                415,
                "the body must be sent with the header 'Content-Type: application/json'",
                details=details,
            )
        status = 400 if request.url.path in bad_request_under else 422
        first = details[0]
        where = first.where.removeprefix("body.")
        message = f"the request is not what was expected: {where}: {first.expected}"
        return _respond(status, message, param=where.split(".")[0], details=details)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return _respond(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(Exception)
    async def server_error(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, ClientDisconnect):  # nobody reads the answer
            return _respond(CALLER_LEFT, "the caller left")
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return _respond(500, "the student failed to answer; this is not the request's fault")


def _where(path: Sequence[str | int]) -> str:
    """The keys that lead to a mistake, without pydantic's names of union members between them, and
    without a caller's own that are no short plain words.
    """
    return ".".join(
        str(part)
        for part in path
        if isinstance(part, int)
        or (part.isidentifier() and part.isascii() and len(part) <= MAX_NAME)
    )


def _respond(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    details: Sequence[Detail] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    facts = ErrorFacts(
        message=message,
        type=_TYPES.get(status, "invalid_request_error"),
        param=param,
        code=code,
        details=list(details),
    )
    return JSONResponse(
        ErrorBody(error=facts).model_dump(), status_code=status, headers=dict(headers or {})
    )
