"""Who comes in: sizes are bounded, a body is read whole before anything is done with it, and no
more wait for the student than its queue holds.

Ray Serve's router backs off for up to half a second where a replica is full, which costs most of
the throughput (ray-project/ray#52609). So a replica takes every request (`max_ongoing_requests` is
far above the queue), and refuses by itself and at once what would have to wait too long. Whatever
does not ask the student (`/healthz` above all) does not queue.
"""

from __future__ import annotations

import asyncio

from ray.exceptions import TaskCancelledError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qcrd_ray.serving.http_errors import RETRY, RequestError

MAX_URL_BYTES = 8 << 10
MAX_HEADER_BYTES = 32 << 10


class SizeLimits:
    """ASGI middleware: 414 and 431 for a URL and for headers that no caller needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if error := _oversize(scope):
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _oversize(scope: Scope) -> RequestError | None:
    if scope["type"] != "http":
        return None
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
        return RequestError(414, f"the URL is over {MAX_URL_BYTES:,} bytes")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return RequestError(431, f"the headers are over {MAX_HEADER_BYTES:,} bytes")
    return None


class Admission:
    """ASGI middleware: a POST gets a place in the queue once its body is here, or is refused.

    503 where ``places`` are taken, before the body is read and after it; 413 for a body of more
    than ``max_bytes``, whatever its headers say; 408 for one that has not come within
    ``body_timeout_s``. A slow caller holds no place.
    """

    def __init__(self, app: ASGIApp, *, places: int, max_bytes: int, body_timeout_s: float) -> None:
        self.app, self.places = app, places
        self._max_bytes, self._body_timeout_s = max_bytes, body_timeout_s
        self.taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            self._refuse_beyond_places()
            body = await self._read(receive)
            if body is None:  # the caller left
                return
            self._refuse_beyond_places()
        except RequestError as error:
            await error.response()(scope, receive, send)
            return
        self.taken += 1
        try:
            await self.app(scope, _replay(body, receive), send)
        finally:
            self.taken -= 1

    def _refuse_beyond_places(self) -> None:
        if self.taken >= self.places:
            raise RequestError(
                503,
                f"{self.places} requests wait already; try again after the seconds of Retry-After",
                headers=RETRY,
            )

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._max_bytes:
                        raise RequestError(
                            413, f"the request's body is over {self._max_bytes:,} bytes"
                        )
                    if not message.get("more_body"):
                        return bytes(body)
        except TaskCancelledError:  # the caller left before its body was here
            return None
        except TimeoutError as error:
            raise RequestError(
                408,
                f"the body did not come whole within {self._body_timeout_s:g} s",
                headers=RETRY,
            ) from error


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that gives ``body``, and then what comes after it: that the caller has left."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
