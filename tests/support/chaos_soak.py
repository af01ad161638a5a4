"""An endpoint under full load: callers who know the answers, strangers who send what no client
does, and a look at every process's memory.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp
import psutil

MEBIBYTE = 1 << 20
HOSTILE_EVERY_S = 0.5
LOOK_EVERY_S = 5.0
PATIENCE_S = 60.0  # for one answer; nobody is to wait as long
NOT_ALLOWED = 500  # of the 5xx, 503 alone is


@dataclass
class Seen:
    """What came back, by status; 0 is a connection that ended without one."""

    answers: Counter[int] = field(default_factory=Counter)
    hostile: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    # by process: (seconds since the start, bytes of its own)
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))


def question(number: int) -> str:
    return f"Tom has {number % 900 + 100} apples and buys {number % 7 + 2} more. How many has he?"


def hostile_requests() -> list[bytes]:
    """Whole requests on a socket, none of which may cost anybody else anything."""

    def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
        lines = [
            "POST /v1/predict HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
            *headers,
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    return [
        post(b"[" * MEBIBYTE),
        post(b" " * MEBIBYTE),
        post(b'{"question": "' + b"a" * (MEBIBYTE - 20) + b'"}'),
        post(b"[" + b"1," * (MEBIBYTE // 2 - 2) + b"1]"),
        post(b'{"question": 5}'),
        post(b'{"question": "\\ud800"}'),
        post(b'{"question": "\xff\xfe"}'),
        post(b'{"question": "a", "samples": 1000000000}'),
        post(b'{"question": "a", "temperature": 1e400}'),
        post(b'{"question": "a", "choices": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        post(b"{", length=100),  # a body that never comes
        post(b"{}", "X-Long: " + "a" * 60_000),
        post(b"{}", "X-Request-ID: \xff"),
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        b"DELETE /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ]


async def soak(
    url: str,
    seconds: float,
    *,
    callers: int,
    known: Sequence[object],
    processes: Callable[[], list[psutil.Process]],
    kill: Callable[[], object],
    kill_every_s: float,
) -> Seen:
    """Load ``url`` for so many ``seconds``.

    ``known`` are the answers to :func:`question` 0, 1, ...; another one is wrong. ``kill`` kills a
    replica.
    """
    seen, start = Seen(), time.monotonic()
    end = start + seconds
    chance = random.Random(0)

    async def call(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            number, asked = chance.randrange(len(known)), time.monotonic()
            try:
                async with session.post(
                    f"{url}/v1/predict", json={"question": question(number)}
                ) as response:
                    body, status = await response.json(content_type=None), response.status
                    retry_after = response.headers.get("Retry-After")
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                seen.answers[0] += 1
                seen.wrong.append(f"{type(error).__name__}: {error}"[:200])
                continue
            seen.answers[status] += 1
            seen.slowest_s = max(seen.slowest_s, time.monotonic() - asked)
            if status == 503 and retry_after:
                await asyncio.sleep(float(retry_after))
            elif status != 200 or told(body) != known[number]:
                seen.wrong.append(f"question {number}: {status} {body}"[:300])

    async def annoy() -> None:
        requests = hostile_requests()
        while time.monotonic() < end:
            sent = chance.choice(requests)
            status = await _send(url, sent)
            seen.hostile[status] += 1
            if status >= NOT_ALLOWED and status != 503:
                seen.wrong.append(f"{status} to {sent[:200]!r}")
            await asyncio.sleep(HOSTILE_EVERY_S)

    async def look() -> None:
        while time.monotonic() < end:
            for process in processes():
                try:
                    words = " ".join(process.cmdline())[:60]
                    own = process.memory_full_info().uss
                except psutil.Error:
                    continue  # it has just ended
                seen.memory[f"{process.pid} {words}"].append((time.monotonic() - start, own))
            await asyncio.sleep(LOOK_EVERY_S)

    async def murder() -> None:
        while time.monotonic() + kill_every_s < end:
            await asyncio.sleep(kill_every_s)
            await asyncio.to_thread(kill)

    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        ) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for work in (annoy(), look(), murder(), *(call(session) for _ in range(callers))):
            tasks.create_task(work)
    return seen


def told(body: object) -> object:
    """What an answer says; its times and its version are left out."""
    assert isinstance(body, dict), body
    return body["label"], body["text"]


def growth(seen: Seen, *, warm_s: float, seconds: float) -> dict[str, tuple[float, float]]:
    """By process that lived from ``warm_s`` to the end: MiB then, and the share that came on top.

    Each is the median of a tenth of the time between.
    """
    window = max((seconds - warm_s) / 10, 2 * LOOK_EVERY_S)
    grown = {}
    for name, samples in seen.memory.items():
        first = [own for at, own in samples if warm_s <= at <= warm_s + window]
        last = [own for at, own in samples if at >= seconds - window]
        if first and last:
            before = statistics.median(first)
            grown[name] = (before / MEBIBYTE, statistics.median(last) / before - 1)
    return grown


async def _send(url: str, request: bytes) -> int:
    """The status that a socket gets for ``request``; 0: none."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(request)
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return 599  # it hung
    except (OSError, ValueError):
        return 0
    words = line.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
