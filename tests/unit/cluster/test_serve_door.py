"""The layer in Ray Serve's proxy, around a proxy that answers as Serve's does."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from qcrd_ray.cluster import ray_internals, serve_door
from qcrd_ray.cluster.serve_door import Pulse, ServeDoor

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
PLAIN = [[b"content-type", b"text/plain; charset=utf-8"]]
JSON = [(b"content-type", b"application/json")]


def answered(proxy, *, path="/v1/predict", headers=()):
    """(status, headers, body) that a caller gets from ``proxy`` behind the door."""
    told = []

    async def send(message):
        told.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    asyncio.run(ServeDoor(proxy)(scope, receive, send))
    assert [message["type"] for message in told] == ["http.response.start", "http.response.body"]
    return told[0]["status"], dict(map(tuple, told[0]["headers"])), told[1]["body"]


def saying(status, headers, body):
    async def proxy(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return proxy


async def silent(scope, receive, send):
    """As the proxy is where a replica died: the web server would say 500 for it."""


async def failing(scope, receive, send):
    raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a header")


@pytest.mark.parametrize(
    ("proxy", "status"),
    [
        (saying(404, PLAIN, b"Path '/v1/predict' not found."), 503),
        (saying(503, PLAIN, b"Request dropped due to backpressure"), 503),
        (saying(408, PLAIN, b"Request 1 timed out after 130s."), 504),
        (saying(500, PLAIN, b"Internal Server Error"), 503),
        (silent, 503),
        (failing, 503),
    ],
)
def test_what_serve_says_itself_has_the_endpoints_form(proxy, status):
    """Bugs guarded: 404 while the endpoint stopped, plain-text 500 without Retry-After for a killed
    replica, plain-text 503 and 408: no client knew that it may try again.
    """
    got, headers, body = answered(proxy)
    assert got == status and headers[b"retry-after"] == b"1"
    assert headers[b"content-type"] == b"application/json"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code", "details"}
    assert b"not found" not in body and b"timed out after" not in body


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, JSON, b'{"error": {}}'),
        (500, JSON, b'{"error": {}}'),
        (200, PLAIN, b"metrics"),
        (200, [(b"content-type", b"text/event-stream")], b"data: 1"),
    ],
)
def test_what_the_application_says_passes_through(status, headers, body):
    got = answered(saying(status, headers, body))
    assert got == (status, dict(headers), body)


def test_serves_own_health_route_is_left_alone():
    drained = saying(503, PLAIN, b"This node is being drained.")
    assert answered(drained, path="/-/healthz")[2] == b"This node is being drained."


def test_a_probe_does_not_wait_behind_the_callers(monkeypatch):
    """Bug guarded: /healthz took as long as an answer, seconds at full load."""
    monkeypatch.setattr(Pulse, "BEAT_S", 0.01)
    monkeypatch.setattr(Pulse, "FRESH_S", 0.5)
    pause, status, asked = 0.0, 200, 0

    async def replica(scope, receive, send):
        nonlocal asked
        asked += 1
        assert dict(scope["headers"])[b"host"] == b"localhost"
        await asyncio.sleep(pause)
        await saying(status, JSON, b"{}")(scope, receive, send)

    async def walk():
        nonlocal pause, status
        door = ServeDoor(replica)

        async def probe():
            told, started = [], time.monotonic()

            async def send(message):
                told.append(message)

            headers = [(b"host", b"localhost")]
            scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": headers}
            await door(scope, None, send)
            return told[0]["status"], time.monotonic() - started

        assert (await probe())[0] == 200
        await asyncio.sleep(0.1)
        pause = 0.3
        for _ in range(20):
            status_, seconds = await probe()
            assert (status_, seconds < 0.1) == (200, True)
            await asyncio.sleep(0.02)
        pause, status = 0.0, 503
        await asyncio.sleep(0.5)
        assert (await probe())[0] == 503, "a failing replica is told within a beat"
        pause = 30.0
        await asyncio.sleep(0.7)
        with pytest.raises(TimeoutError):  # as Serve's own timeout ends it
            await asyncio.wait_for(probe(), 0.3)
        before = asked
        monkeypatch.setattr(Pulse, "IDLE_S", 0.0)
        await asyncio.sleep(0.1)
        assert asked == before, "nobody probes, so nobody is asked"

    asyncio.run(walk())


def test_a_burst_of_callers_lets_a_probe_through():
    """All requests that a batch set free used to start in one round of the event loop."""
    begun = 0

    async def proxy(scope, receive, send):
        nonlocal begun
        begun += scope["path"] != "/healthz"
        await saying(200, JSON, b"{}")(scope, receive, send)

    async def walk():
        door, told = ServeDoor(proxy), []

        async def ask(path, method):
            scope = {"type": "http", "method": method, "path": path, "headers": []}

            async def send(message):
                told.append(path)

            await door(scope, None, send)

        burst = [asyncio.create_task(ask("/v1/predict", "POST")) for _ in range(100)]
        await asyncio.create_task(ask("/healthz", "GET"))
        assert begun < 10
        await asyncio.gather(*burst)
        assert begun == 100

    asyncio.run(walk())


def test_an_answer_that_has_begun_is_broken_off():
    """A second answer behind half of the first would be read as part of it."""

    async def dying(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": JSON})
        raise RuntimeError("the replica died")

    with pytest.raises(RuntimeError):
        answered(dying)


def test_callers_give_serve_no_orders_and_nothing_that_it_cannot_read():
    """Bugs guarded: `X-Request-Timeout-Seconds: 0` switched the timeout off, and bytes above 0x7f
    in some headers were a 500.
    """
    http_util = importlib.import_module("ray.serve._private.http_util")
    constants = importlib.import_module("ray.serve._private.constants")
    kept = [(b"host", b"localhost"), (b"authorization", b"Bearer \xff"), (b"x-request-id", b"a-1")]
    orders = [
        (constants.SERVE_HTTP_REQUEST_TIMEOUT_S_HEADER.encode(), b"0"),
        (constants.SERVE_HTTP_REQUEST_DISCONNECT_DISABLED_HEADER.encode(), b"?1"),
        (constants.SERVE_SESSION_ID.encode(), b"\xff"),
        (constants.SERVE_SESSION_ID.upper().replace("-", "_").encode(), b"1"),
        (constants.SERVE_MULTIPLEXED_MODEL_ID.encode(), b"\xff"),
        (constants.SERVE_HTTP_REQUEST_ID_HEADER.encode(), b"\xff"),
        (b"n\xffme", b"1"),
    ]
    seen = []

    async def proxy(scope, receive, send):
        seen.extend(scope["headers"])
        await saying(200, JSON, b"{}")(scope, receive, send)

    answered(proxy, headers=[*kept, *orders])
    assert seen == kept
    assert http_util.parse_request_timeout_header(dict(seen), 130.0) == 130.0
    assert not http_util.parse_disconnect_disabled_header(dict(seen))
    for name, _ in seen:
        name.decode()  # as the proxy reads every name


def test_serve_still_reads_its_proxies_layers_from_the_variable(monkeypatch):
    """No public way exists: `HTTPOptions.middlewares` was removed."""
    from ray.serve.config import HTTPOptions

    spec = find_spec("ray.serve._private.constants")
    assert spec and spec.origin and VARIABLE in Path(spec.origin).read_text()
    monkeypatch.setenv(VARIABLE, "mine:own")
    ray_internals.prepare_serve_proxies()
    assert os.environ[VARIABLE] == "mine:own"
    monkeypatch.delenv(VARIABLE)
    ray_internals.prepare_serve_proxies()
    path = os.environ[VARIABLE]
    http_util = importlib.import_module("ray.serve._private.http_util")
    (layer,) = http_util.validate_http_proxy_callback_return(
        http_util.call_function_from_import_path(path)
    )
    assert layer.cls is ServeDoor and serve_door.layers()
    with pytest.raises(ValueError, match="removed"):
        HTTPOptions(middlewares=[layer])


def test_a_proxy_loads_no_model_library_for_it():
    script = (
        "import sys, qcrd_ray.cluster.serve_door; assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
