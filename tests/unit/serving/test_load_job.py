"""jobs/load_endpoint.py against an endpoint that counts what it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

JOB = Path(__file__).resolve().parents[3] / "jobs" / "load_endpoint.py"


def test_a_step_counts_answers_refusals_and_probes():
    """A figure of throughput that counts refusals as answers would rise as the endpoint fails."""
    counted, lock = {"answers": 0, "refused": 0, "probes": 0}, threading.Lock()

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with lock:
                counted["probes"] += 1
            self.say(200)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert body["question"].startswith("Tom has")
            assert self.headers["Authorization"] == "Bearer k"
            with lock:
                kind = "refused" if counted["answers"] > 3 * counted["refused"] else "answers"
                counted[kind] += 1
            self.say(503 if kind == "refused" else 200)

        def say(self, status):
            self.send_response(status)
            if status == 503:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        steps = ["--callers", "1", "3", "--seconds", "1", "--key-file", "/dev/stdin"]
        done = subprocess.run(
            [sys.executable, JOB, url, *steps],
            input="k\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        server.shutdown()
    one, three = map(json.loads, done.stdout.splitlines())
    assert (one["callers"], three["callers"]) == (1, 3)
    assert 0 < one["answers_per_s"] + three["answers_per_s"] <= counted["answers"]
    for line in (one, three):
        assert 0.15 < line["refused"] < 0.35 and line["failed"] == 0
        assert 0 < line["p50_ms"] <= line["p99_ms"] and line["healthz_p99_ms"] > 0
