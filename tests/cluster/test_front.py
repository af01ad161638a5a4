"""clusters/front.conf as nginx runs it: each of its limits, broken for real.

apt-get install --no-install-recommends nginx-light openssl
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn

CONFIG = Path(__file__).parents[2] / "clusters" / "front.conf"
NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
TIMEOUT_S = 10  # of headers, and between two pieces of a body
MOST_OF_ONE_CALLER = 64
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        NGINX is None or shutil.which("openssl") is None, reason="needs nginx and openssl"
    ),
]


class Endpoint:
    """An application that keeps what reaches it. `/stream` sends a piece at each ``go``; `/held`
    answers then.
    """

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.go = threading.Semaphore(0)

    async def __call__(self, scope, receive, send):
        body = b""
        self.requests.append({"path": scope["path"], "headers": dict(scope["headers"])})
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        pieces = 3 if scope["path"] == "/stream" else 0
        if scope["path"] == "/held":
            await asyncio.to_thread(self.go.acquire)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(pieces):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await asyncio.to_thread(self.go.acquire)
        await send({"type": "http.response.body", "body": b"%d" % len(body)})


@pytest.fixture(scope="module")
def endpoint():
    return Endpoint()


@pytest.fixture(scope="module")
def front(endpoint, tmp_path_factory):
    """The port of nginx in front of ``endpoint``, and its certificate."""
    folder = tmp_path_factory.mktemp("front")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1"
        f" -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        f" -out {certificate} -keyout {key}".split(),
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(endpoint, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        for _ in range(200):
            endpoint.go.release()
        thread.join(10)
        listening.close()

    endpoint.stop = stop
    text = CONFIG.read_text()
    for mark, value in {
        "<host name>": "localhost",
        "<certificate>": str(certificate),
        "<its key>": str(key),
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{listening.getsockname()[1]}",
    }.items():
        assert mark in text
        text = text.replace(mark, value)
    (folder / "nginx.conf").write_text(text)
    settings = f"daemon off; pid {folder}/pid; error_log {folder}/error.log;"
    nginx = subprocess.Popen([NGINX, "-c", folder / "nginx.conf", "-g", settings])
    try:
        deadline = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline and nginx.poll() is None
            time.sleep(0.05)
        yield port, certificate
    finally:
        nginx.terminate()
        nginx.wait(10)
        stop()


@pytest.fixture
def client(front):
    port, certificate = front
    context = ssl.create_default_context(cafile=certificate)
    with httpx.Client(base_url=f"https://localhost:{port}", verify=context, timeout=20) as opened:
        yield opened


def connect(front) -> ssl.SSLSocket:
    port, certificate = front
    context = ssl.create_default_context(cafile=certificate)
    return context.wrap_socket(
        socket.create_connection(("127.0.0.1", port)), server_hostname="localhost"
    )


def seconds_until_closed(front, first: bytes, more: bytes, most_s: float) -> float:
    """How long nginx bears a caller who sends ``first``, and then ``more`` once a second."""
    started = time.monotonic()
    with connect(front) as caller:
        caller.settimeout(1)
        caller.sendall(first)
        while time.monotonic() - started < most_s:
            try:
                if caller.recv(65536) == b"":
                    break
            except TimeoutError:
                pass
            except OSError:
                break
            try:
                caller.sendall(more)
            except OSError:
                break
    return time.monotonic() - started


def test_it_speaks_tls_alone(front, client):
    assert client.post("/v1/predict", content=b"abc").text == "3"
    plain = httpx.get(f"http://localhost:{front[0]}/")
    assert plain.status_code == 400


def test_a_stream_passes_as_it_comes(client, endpoint):
    """Bug guarded: a proxy that gathers an answer turns tokens into one late text."""
    with client.stream("POST", "/stream", content=b"") as answer:
        pieces = answer.iter_raw()
        for number in range(3):
            assert next(pieces) == b"%d" % number
            endpoint.go.release()


def test_no_header_gives_orders_to_ray(client, endpoint):
    """Bug guarded: callers switched Ray Serve's time limit off, or made it fail by bytes that are
    no UTF-8.
    """
    orders = [
        ("X-Request-Timeout-Seconds", b"0"),
        ("X-Request-Disconnect-Disabled", b"?1"),
        ("serve_multiplexed_model_id", b"m"),
        ("Serve-Multiplexed-Model-Id", b"\xff"),
        ("X-Session-Id", b"s"),
        ("X_Session_Id", b"s"),
        ("X-Serve-Router-Choice", b"r"),
        ("X-Request-Id", b"\xff"),
        ("Traceparent", b"t"),
    ]
    kept = {"Authorization": "Bearer k", "Content-Type": "application/json"}
    client.post("/v1/predict", content=b"{}", headers=[*orders, *kept.items()])
    headers = endpoint.requests[-1]["headers"]
    assert headers.keys() == {
        b"host",
        b"content-length",
        b"authorization",
        b"content-type",
        b"x-request-id",
    }
    assert headers[b"authorization"] == b"Bearer k" and headers[b"host"] == b"localhost"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-request-id"].isalnum(), "nginx's own"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "GET", "url": "/?" + "x" * 9_000}, 414),
        ({"method": "GET", "url": "/", "headers": {"X": "x" * 9_000}}, 400),
        ({"method": "GET", "url": "/", "headers": [(f"X{i}", "x" * 4_000) for i in range(9)]}, 400),
        ({"method": "POST", "url": "/", "content": b"x" * ((1 << 20) + 1)}, 413),
        ({"method": "POST", "url": "/", "content": iter([b"x" * 65_536] * 17)}, 413),
        ({"method": "GET", "url": "/-/routes"}, 404),
        ({"method": "GET", "url": "/metrics"}, 404),
    ],
    ids=["url", "header", "headers", "body", "chunks", "ray", "metrics"],
)
def test_what_is_too_large_does_not_reach_ray(client, endpoint, request_, status):
    before = len(endpoint.requests)
    refused = client.request(**request_)
    assert refused.status_code == status and len(endpoint.requests) == before
    if status == 413:
        assert json.loads(refused.text)["error"]["type"] == "invalid_request_error"


def test_the_largest_that_is_allowed_passes(client):
    assert client.post("/", content=b"x" * (1 << 20)).text == str(1 << 20)
    assert client.get("/?" + "x" * 8_000, headers={"Authorization": "x" * 8_000}).text == "0"


def test_slow_callers_are_put_off_and_never_reach_ray(front, endpoint):
    """Bug guarded: 64 sockets that sent one byte of a body held all that Ray Serve takes at once.

    nginx bounds the time of all headers, and the time between two pieces of a body. A body that
    trickles may go on; it holds a connection here and nothing of Ray's.
    """
    before = len(endpoint.requests)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    slow = {
        "idle": (b"", b""),
        "headers": (head, b"X"),
        "silent body": (head + b"Content-Length: 99\r\n\r\nx", b""),
        "trickling body": (head + b"Content-Length: 99\r\n\r\nx", b"x"),
    }
    with ThreadPoolExecutor(len(slow)) as pool:
        borne = dict(
            zip(
                slow,
                pool.map(
                    lambda sent: seconds_until_closed(front, *sent, most_s=TIMEOUT_S + 5),
                    slow.values(),
                ),
                strict=True,
            )
        )
    assert len(endpoint.requests) == before
    for kind in ("idle", "headers", "silent body"):
        assert TIMEOUT_S - 1 < borne[kind] < TIMEOUT_S + 4, borne


def test_a_thousand_idle_connections_keep_nobody_out(front, client):
    """Bug guarded: idle sockets stopped the service."""
    idle = [socket.create_connection(("127.0.0.1", front[0])) for _ in range(1_000)]
    try:
        started = time.monotonic()
        assert client.get("/").status_code == 200
        assert time.monotonic() - started < 2
    finally:
        for each in idle:
            each.close()


def test_one_caller_gets_so_many_requests_at_once(front, client, endpoint):
    held = [connect(front) for _ in range(MOST_OF_ONE_CALLER)]
    try:
        before = len(endpoint.requests)
        for each in held:
            each.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline = time.monotonic() + 20
        while len(endpoint.requests) < before + MOST_OF_ONE_CALLER:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        refused = client.get("/")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["error"]["type"] == "overloaded_error"
    finally:
        for each in held:
            endpoint.go.release()
            each.close()


def test_while_nothing_answers_a_caller_may_come_again(client, endpoint):
    """The last one: it stops what is behind nginx."""
    endpoint.stop()
    refused = client.get("/")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.json()["error"]["type"] == "overloaded_error"
