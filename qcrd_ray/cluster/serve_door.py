"""A layer in Ray Serve's proxy: what the proxy says itself gets the endpoint's form.

The proxy decodes some headers as UTF-8 and answers 500 where they are not, lets callers switch its
timeout off by a header, and speaks plain text: 404 while no application is there, 503 with a full
queue, 500 for a replica that died. A client has to know which of these may be tried again.

A local Ray has this layer by itself (`ray_internals.prepare_serve_proxies`); a cluster sets the
variable in the environment of each node with a proxy. The proxy imports this file, so it imports
neither torch nor anything else of this package.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.middleware import Middleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

RETRY_AFTER_S = 1
# Ray Serve takes orders from these: its timeout, whether it minds a caller that left, which replica
_CONTROLS = frozenset(
    {
        "x-request-timeout-seconds",
        "x-request-disconnect-disabled",
        "x-session-id",
        "serve-multiplexed-model-id",
    }
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_UNAVAILABLE = "the endpoint cannot answer now; try again after the seconds of Retry-After"
_LATE = "there was no answer in time; ask for less at once, or later"

logger = logging.getLogger("ray.serve")


def layers() -> list[Middleware]:
    """The layers of each proxy, as Ray Serve asks for them."""
    return [Middleware(ServeDoor)]


class ServeDoor:
    """ASGI middleware around Ray Serve's proxy.

    What the application answers passes through. Serve's own plain-text errors become JSON: 504 for
    its timeout (408), and 503 with Retry-After for everything else, also where it sends nothing.
    The application is mounted at `/`, so Serve's 404 means that it is starting or stopping.
    `/healthz` (and `/health`) is answered by a :class:`Pulse`.
    """

    def __init__(self, app: App) -> None:
        self.app, self._pulse, self._turn = app, Pulse(self._pass), asyncio.Lock()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Serve's own routes
            await self.app(scope, receive, send)
            return
        scope["headers"] = harmless(scope["headers"])
        if scope["path"] in ("/healthz", "/health") and scope["method"] == "GET":
            await self._pulse(scope, receive, send)
            return
        async with self._turn:  # one request in each round of the event loop: a probe comes between
            await asyncio.sleep(0)
        await self._pass(scope, receive, send)

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        started = replaced = False

        async def translated(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                started = True
                replaced = message["status"] >= 400 and _is_plain(message["headers"])
                if replaced:
                    await _answer(send, 504 if message["status"] == 408 else 503)
            if not replaced:
                await send(message)

        try:
            await self.app(scope, receive, translated)
        except Exception:
            if started:
                raise
            logger.exception("Ray Serve's proxy failed at a request")
        if not started:
            await _answer(send, 503)


class Pulse:
    """Answers a probe with what a replica said a moment ago.

    A busy replica answers a probe behind what arrived before it, on a full machine after a second,
    and a prober that takes that for death restarts it at its peak. So a replica is asked once in
    `BEAT_S` while anybody probes, and an answer of up to `FRESH_S` is passed on at once. One that
    says nothing for longer is waited for, as without this.
    """

    BEAT_S, FRESH_S, IDLE_S = 1.0, 5.0, 60.0

    def __init__(self, app: App) -> None:
        self._app = app
        self._answer: list[Message] = []
        self._answered = self._probed = -math.inf
        self._beating: asyncio.Task | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._probed = time.monotonic()
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat(scope))
        if self._probed - self._answered > self.FRESH_S:
            await self._app(scope, receive, send)
            return
        for message in self._answer:
            await send(message)

    async def _beat(self, scope: Message) -> None:
        async def stay() -> Message:
            return await asyncio.Event().wait() and {}

        while time.monotonic() - self._probed < self.IDLE_S:
            told: list[Message] = []

            async def keep(message: Message, told: list[Message] = told) -> None:
                told.append(message)

            headers = [(b"host", b"localhost")]  # every endpoint answers under that name
            await self._app({**scope, "headers": headers}, stay, keep)
            self._answer, self._answered = told, time.monotonic()
            await asyncio.sleep(self.BEAT_S)


def harmless(headers: Iterable[Header]) -> list[Header]:
    """The headers without those that steer Ray Serve, or that it cannot read.

    A name that is no ASCII is none of HTTP's. A request's id is kept where it is a short word.
    """
    return [
        (name, value)
        for name, value in headers
        if name.isascii()
        and (plain := name.decode().lower().replace("_", "-")) not in _CONTROLS
        and (plain != "x-request-id" or _REQUEST_ID.fullmatch(value))
    ]


def _is_plain(headers: Iterable[Header]) -> bool:
    kinds = [bytes(value) for name, value in headers if bytes(name).lower() == b"content-type"]
    return not kinds or kinds[0].startswith(b"text/plain")


async def _answer(send: Send, status: int) -> None:
    facts = {
        "message": _LATE if status == 504 else _UNAVAILABLE,
        "type": "timeout_error" if status == 504 else "overloaded_error",
        "param": None,
        "code": None,
        "details": [],
    }
    body = json.dumps({"error": facts}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_S).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
