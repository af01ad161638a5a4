"""An OpenAI-compatible endpoint on a real socket, whose every answer, or failure to answer, a test
decides.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-0123456789abcdef"  # what the server takes, and what must be found nowhere
TEXT = "First there were 3, then 5 more came. So the answer is 8."


class Server:
    """``script(number, body)`` answers the ``number``-th POST (from 1) with a :func:`reply`, or
    with what one of the faults below is.

    ``requests`` holds the bodies of all POSTs, ``paid`` the tokens of all answers.
    """

    def __init__(self, script: Callable[[int, dict], object]):
        self.script = script
        self.requests: list[dict] = []
        self.lists: list[str] = []  # paths of GETs
        self.models = ["a-model"]
        self.sent: list[str | None] = []  # the Authorization of all POSTs
        self.keys = [KEY]  # those that are taken; a request without one is taken too
        self.paid = 0
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.url = ""


def reply(
    body: dict,
    *,
    text: str = TEXT,
    choices: int | None = None,
    usage: bool = True,
    finish_reason: str = "stop",
    **message,
) -> dict:
    """What an endpoint says to ``body``: as many choices as it asks for, ten tokens each, and
    twenty of the prompt.
    """
    count = body.get("n", 1) if choices is None else choices
    chat = "messages" in body
    spoken = (
        {"message": {"role": "assistant", "content": text, **message}} if chat else {"text": text}
    )
    answer = {
        "choices": [
            {"index": place, "finish_reason": finish_reason, **spoken} for place in range(count)
        ]
    }
    return (
        {**answer, "usage": {"prompt_tokens": 20, "completion_tokens": 10 * count}}
        if usage
        else answer
    )


def status(
    status_code: int, message: str = "no", /, *, headers: dict | None = None, **error
) -> tuple[int, dict, bytes]:
    return status_code, headers or {}, json.dumps({"error": {"message": message, **error}}).encode()


def half(body: dict) -> tuple[int, dict, bytes]:
    """Half of a JSON body, which calls itself whole."""
    text = json.dumps(reply(body)).encode()
    return 200, {}, text[: len(text) // 2]


DROP, HANG = "drop", "hang"  # the connection ends without an answer; it stays open without one


@contextmanager
def serving(
    script: Callable[[int, dict], object] = lambda number, body: reply(body),
) -> Iterator[Server]:
    server = Server(script)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.lists.append(self.path)
            if not self._known():
                self._send(
                    *status(401, f"Incorrect API key provided: {self.headers.get('Authorization')}")
                )
            elif self.path == "/v1/models" and server.models:
                self._send(
                    200, {}, json.dumps({"data": [{"id": name} for name in server.models]}).encode()
                )
            else:
                self._send(*status(404, "Not Found"))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(body)
                server.sent.append(self.headers.get("Authorization"))
                number = len(server.requests)
            if not self._known():
                self._send(
                    *status(401, f"Incorrect API key provided: {self.headers.get('Authorization')}")
                )
                return
            answer = server.script(number, body)
            if answer == HANG:
                server.over.wait()
            if answer in (HANG, DROP):
                self.close_connection = True
                return
            if isinstance(answer, dict):
                with server.lock:
                    server.paid += sum(answer.get("usage", {}).values())
                answer = (200, {}, json.dumps(answer).encode())
            self._send(*answer)

        def _known(self) -> bool:
            return self.headers.get("Authorization") in (
                None,
                *(f"Bearer {key}" for key in server.keys),
            )

        def _send(self, code: int, headers: dict, content: bytes) -> None:
            self.send_response(code)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments) -> None:
            """Quiet."""

    return Handler
