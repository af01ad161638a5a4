"""`make soak`: the endpoint at full load for SOAK_S seconds, a replica killed now and then, and
strangers among the callers.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from chaos_process import Command, Missed
from chaos_soak import growth, question, soak, told
from chaos_trial import ENVIRONMENT

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

SECONDS = float(os.environ.get("SOAK_S", "3600"))
CALLERS = 64
KNOWN = 40  # different questions
REPLICAS = 2
KILL_EVERY_S = 60.0
WARM_S = 600.0  # after these the memory is flat
GROWTH = 0.05


@pytest.fixture
def endpoint(exported_student, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = Command(
        [
            *(sys.executable, "-m", "qcrd_ray.cli", "serve", exported_student),
            *("--port", str(port), "--replicas", str(REPLICAS)),
            *("--set", "max_queued_requests=16", "--set", "replica.cpus=0.5"),
        ],
        tmp_path / "words.txt",
        **ENVIRONMENT,
    )
    try:
        yield command, f"http://127.0.0.1:{port}"
    finally:
        command.destroy()


def ask(url: str, number: int) -> object:
    body = json.dumps({"question": question(number)}).encode()
    request = urllib.request.Request(
        f"{url}/v1/predict", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return told(json.load(response))


def test_an_endpoint_at_full_load_answers_or_says_when(endpoint, pytestconfig):
    command, url = endpoint
    deadline = time.monotonic() + 600
    while "serving " not in command.words:
        assert command.code is None and time.monotonic() < deadline, command.words[-2000:]
        time.sleep(0.5)
    known = [ask(url, number) for number in range(KNOWN)]
    killed = []

    def kill_the_youngest() -> None:
        """The oldest one lives, so that its memory can be watched."""
        try:
            replicas = command.find("^ray::ServeReplica")
        except Missed:
            return
        if len(replicas) == REPLICAS:
            victim = max(replicas, key=lambda process: process.create_time())
            command.kill(victim)
            killed.append(victim.pid)

    seen = asyncio.run(
        soak(
            url,
            SECONDS,
            callers=CALLERS,
            known=known,
            processes=command.alive,
            kill=kill_the_youngest,
            kill_every_s=min(KILL_EVERY_S, SECONDS / 4),
        )
    )
    grown = growth(seen, warm_s=min(WARM_S, SECONDS / 3), seconds=SECONDS)
    row = {
        "seconds": SECONDS,
        "callers": CALLERS,
        "answers": seen.answers[200],
        "answers_per_s": round(seen.answers[200] / SECONDS, 1),
        "refused": seen.answers[503],
        "slowest_s": round(seen.slowest_s, 1),
        "hostile": dict(sorted(seen.hostile.items())),
        "killed": len(killed),
        "wrong": seen.wrong[:20],
        "memory": {
            name: {"mib": round(mib, 1), "grown": round(share, 3)}
            for name, (mib, share) in grown.items()
        },
    }
    file = Path(pytestconfig.getoption("--chaos-out")) / "soak.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))

    assert not seen.wrong, seen.wrong[:5]
    assert seen.answers[200] and killed, "nothing was shown"
    command.interrupt()
    assert command.wait(60) == 0, command.words[-2000:]
    command.wait_gone()
    assert not command.late, command.late
    if SECONDS > 2 * WARM_S:
        fat = {name: each for name, each in grown.items() if each[1] > GROWTH}
        assert not fat, fat
