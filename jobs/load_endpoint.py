"""Load a served student with more and more callers, and print a JSON line for each number of them.

    qcrd serve runs/demo/student --port 8000
    python jobs/load_endpoint.py http://127.0.0.1:8000 --callers 1 8 32 64 128 256 --seconds 20

Each caller asks one question after the other, and waits out the Retry-After of a 503 before it asks
again. A probe asks /healthz ten times a second meanwhile. The latency of an answer counts from the
first attempt, as its caller feels it. `refused` is the share of attempts that ended in 503 with a
Retry-After; `failed` counts everything else that was no answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import aiohttp

PROBE_EVERY_S = 0.1
WARM_UP_S = 2.0


@dataclass
class Seen:
    """What the callers of one step saw, in seconds."""

    answers: list[float] = field(default_factory=list)
    probes: list[float] = field(default_factory=list)
    attempts: int = 0
    refused: int = 0
    failed: int = 0


def question(number: int) -> str:
    """The ``number``-th question: all are different, and equally long."""
    return f"Tom has {number % 900 + 100} apples and buys {number % 7 + 2} more. How many has he?"


async def load(url: str, callers: int, seconds: float, headers: dict[str, str]) -> Seen:
    """Ask ``url`` with so many ``callers`` for ``seconds``, after a warm-up that is not counted."""
    begin = time.monotonic() + min(WARM_UP_S, seconds / 2)
    end = begin + seconds
    seen, numbers = Seen(), iter(range(1 << 40))

    async def ask(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            body, started, answered = {"question": question(next(numbers))}, time.monotonic(), False
            while not answered and time.monotonic() < end:
                status, retry_after = 0, "1"
                try:
                    async with session.post(f"{url}/v1/predict", json=body) as response:
                        await response.read()
                        status = response.status
                        retry_after = response.headers.get("Retry-After", "")
                except aiohttp.ClientError:
                    pass
                now = time.monotonic()
                answered = status == 200
                if begin <= now <= end:
                    seen.attempts += 1
                    if answered:
                        seen.answers.append(now - started)
                    elif status == 503 and retry_after:
                        seen.refused += 1
                    else:
                        seen.failed += 1
                if not answered:
                    await asyncio.sleep(float(retry_after or 1))

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as prober:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=300),
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            probed = asyncio.get_running_loop().run_in_executor(prober, probe, url, begin, end)
            for _ in range(callers):
                tasks.create_task(ask(session))
        seen.probes = await probed
    return seen


def probe(url: str, begin: float, end: float) -> list[float]:
    """The seconds of calls to /healthz between ``begin`` and ``end``, on the monotonic clock.

    In a process of its own: an orchestrator's probe does not wait behind the callers either.
    """
    seconds = []
    while (started := time.monotonic()) < end:
        with urllib.request.urlopen(f"{url}/healthz", timeout=300) as response:
            response.read()
        if started >= begin:
            seconds.append(time.monotonic() - started)
        time.sleep(PROBE_EVERY_S)
    return seconds


def row(seen: Seen, *, callers: int, seconds: float) -> dict[str, float]:
    """The line of one step: answers a second, milliseconds, shares."""
    return {
        "callers": callers,
        "answers_per_s": round(len(seen.answers) / seconds, 1),
        "p50_ms": _percentile(seen.answers, 50),
        "p99_ms": _percentile(seen.answers, 99),
        "refused": round(seen.refused / max(seen.attempts, 1), 3),
        "failed": seen.failed,
        "healthz_p50_ms": _percentile(seen.probes, 50),
        "healthz_p99_ms": _percentile(seen.probes, 99),
    }


def _percentile(seconds: Sequence[float], percent: int) -> float:
    if len(seconds) < 2:
        return round(1_000 * seconds[0], 1) if seconds else 0.0
    return round(1_000 * statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", help="of a served student, without a path")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8, 32, 64, 128, 256])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each number of callers")
    parser.add_argument("--key-file", type=Path, help="holds the bearer key")
    args = parser.parse_args()
    headers = {}
    if args.key_file:
        headers["Authorization"] = f"Bearer {args.key_file.read_text().strip()}"
    try:
        probe(args.url, 0.0, time.monotonic() + PROBE_EVERY_S)
    except OSError as error:
        sys.exit(f"{args.url}/healthz does not answer ({error}); is the student served there?")
    for callers in args.callers:
        seen = asyncio.run(load(args.url, callers, args.seconds, headers))
        print(json.dumps(row(seen, callers=callers, seconds=args.seconds)), flush=True)


if __name__ == "__main__":
    main()
