"""A request's JSON: bounded in values and in depth, and without halves of surrogate pairs.

What a schema makes of a body costs by the value, not by the byte: 1 MiB of `[1,1,1,...]` holds half
a million of them, and an error for each. So a body is counted after it is parsed and before any
schema sees it, which takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from qcrd_ray.serving.http_errors import RequestError

# 64 questions with 26 choices each and all fields are 2,500
MAX_VALUES = 10_000
MAX_DEPTH = 16


class BoundedRoute(APIRoute):
    """A route whose JSON body passes :func:`check` before it is validated."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's way to give a route another kind of request."""
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handler(_BoundedRequest(request.scope, request.receive))

        return bounded


class _BoundedRequest(Request):
    async def json(self) -> Any:
        value = await super().json()
        check(value)
        return value


def check(body: Any) -> None:
    """Look at every value of a parsed body once.

    Raises:
        RequestError: 413 for more than `MAX_VALUES`; 400 for more than `MAX_DEPTH` levels, or for a
            text that no UTF-8 can carry, with the field that it stands in.
    """
    values = 1
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, str):
            if not _is_unicode(value):
                raise _no_unicode(path)
        elif isinstance(value, (dict, list)):
            values += len(value)
            if values > MAX_VALUES:
                raise RequestError(413, f"the body holds over {MAX_VALUES:,} values")
            if len(path) == MAX_DEPTH:
                raise RequestError(400, f"the body is nested over {MAX_DEPTH} levels deep")
            if isinstance(value, dict):
                if not all(map(_is_unicode, value)):
                    raise _no_unicode(path)
                todo += (((*path, key), inner) for key, inner in value.items())
            else:
                todo += (((*path, place), inner) for place, inner in enumerate(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_unicode(path: tuple[str | int, ...]) -> RequestError:
    return RequestError.at(
        400, ("body", *path), "valid Unicode text; half of a surrogate pair is none"
    )
