"""The endpoint on an address that other machines reach: its key, its full queue, a new version, a
dead replica. Real Ray Serve and HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray import serve
from ray.serve.context import _get_global_client

from qcrd_ray import serving
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.application import build, replica_key
from qcrd_ray.serving.endpoint import APP

pytestmark = pytest.mark.integration

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(f"{KEY}\n")
    return file


@pytest.fixture(scope="module")
def recipe(key_file):
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port = probe.getsockname()[1]
    return ServingRecipe(
        host="0.0.0.0",
        port=port,
        api_key_file=str(key_file),
        replicas=2,
        max_batch_size=1,
        max_queued_requests=2,
    )


@pytest.fixture(scope="module")
def url(local_ray, exported_student, recipe):
    serving.start(exported_student, recipe)
    yield f"http://127.0.0.1:{recipe.port}"
    serving.stop()


def ask(url, body, *, key=KEY, path="/v1/predict"):
    """(status, headers, body as text) of a POST."""
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {key}"} if key else {}),
    }
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url + path, json.dumps(body).encode(), headers), timeout=60
        ) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def replica_pids():
    """The processes of the replicas that take requests."""
    details = _get_global_client().get_serve_details()
    replicas = details["applications"][APP]["deployments"]["student"]["replicas"]
    return {replica["pid"] for replica in replicas if replica["state"] == "RUNNING"}


def curl(*arguments):
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--include", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_meets_the_door(url, key_file):
    question = ["-H", "Content-Type: application/json", "-d", json.dumps({"question": QUESTION})]
    refused = curl(f"{url}/v1/predict", *question)
    assert refused.startswith("HTTP/1.1 401") and "www-authenticate: Bearer" in refused
    assert curl(f"{url}/v1/predict", "-H", f"Authorization: Bearer {KEY}", *question).startswith(
        "HTTP/1.1 200"
    )
    assert curl(f"{url}/v1/predict", "-H", f"Authorization: Bearer {KEY}", "-d", "{}").startswith(
        "HTTP/1.1 415"
    )
    assert curl(f"{url}/healthz").startswith("HTTP/1.1 200")


def test_the_example_command_reads_the_key_from_its_file(url, recipe):
    command = serving.example(url, recipe)
    assert KEY not in command
    done = subprocess.run(
        f"{command} --silent", shell=True, capture_output=True, text=True, timeout=60, check=True
    )
    assert "label" in json.loads(done.stdout)


def test_the_key_is_told_to_nobody(url):
    """Not in what `serve status` shows, not in a process list, not in Serve's logs."""
    assert KEY not in str(serve.status())
    processes = [
        path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
    ]
    assert not any(KEY.encode() in command for command in processes)
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert not [
        path for path in logs.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def test_one_scrape_shows_every_replica(url):
    """A scrape that reaches one replica at random shows counters that jump back and forth."""
    for _ in range(12):
        ask(url, {"question": QUESTION})
    text = curl(f"{url}/metrics", "-H", f"Authorization: Bearer {KEY}")
    requests = [
        line
        for line in text.splitlines()
        if line.startswith("qcrd_requests_total") and "/v1/predict" in line and '"200"' in line
    ]
    assert len({line.partition('replica="')[2].partition('"')[0] for line in requests}) == 2, text
    assert sum(float(line.rpartition(" ")[2]) for line in requests) >= 12


def test_a_full_queue_is_503_and_says_when_to_come_back(url):
    """An unbounded queue answers everybody too late instead of some at once."""
    body = {"question": QUESTION, "samples": 60, "temperature": 1.5}
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda seed: ask(url, {**body, "seed": seed}), range(48)))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}, statuses
    assert all(headers["Retry-After"] == "1" for status, headers, _ in answers if status == 503)


def test_a_new_version_drops_no_request(url, recipe, make_run):
    """The old replica must go on answering until the new one is warm, and finish what it has
    taken.
    """
    from qcrd_ray.models.student_folder import StudentFolder, export_student

    made, folder = make_run()
    shutil.copy(
        folder.training("finetune") / "best" / "model.safetensors", folder.training("qcrd") / "best"
    )
    row = {
        "name": "student",
        "head": "label",
        "split": "test",
        "correct": 1,
        "total": 2,
        "unanswered": 0,
    }
    other = export_student(
        made,
        folder,
        results={"rows": [{**row, "accuracy": 0.5, "low": 0.1, "high": 0.9}], "notes": []},
    )
    new = f"fp_{StudentFolder.open(other).facts['exported_from'][:12]}"
    answers, done = [], threading.Event()

    def hammer():
        while not done.is_set():
            answers.append(
                ask(url, {"model": "student", "prompt": QUESTION}, path="/v1/completions")
            )

    with ThreadPoolExecutor(2) as pool:
        hammering = [pool.submit(hammer) for _ in range(2)]
        try:
            serving.start(other, recipe)
            time.sleep(1)
        finally:
            done.set()
        [one.result() for one in hammering]
    failed = [answer for answer in answers if answer[0] != 200]
    assert not failed, (len(failed), len(answers), failed[:3])
    versions = [json.loads(body)["system_fingerprint"] for _, _, body in answers]
    assert len(set(versions)) == 2 and versions[0] != new
    last = ask(url, {"model": "student", "prompt": QUESTION}, path="/v1/completions")
    assert json.loads(last[2])["system_fingerprint"] == new


def test_a_dead_replica_is_replaced(url):
    """SIGKILL: the next answers come from a new replica, without anybody's help.

    Bug guarded: what it had in progress ended in a plain-text 500 without Retry-After.
    """
    before, done = replica_pids(), threading.Event()
    body = {"question": QUESTION, "samples": 8, "temperature": 1.5}

    def hammer(seed):
        answers = []
        while not done.is_set():
            answers.append(ask(url, {**body, "seed": seed}))
        return answers

    with ThreadPoolExecutor(4) as pool:
        hammering = [pool.submit(hammer, seed) for seed in range(4)]
        try:
            time.sleep(1)
            os.kill(min(before), signal.SIGKILL)
            deadline = time.monotonic() + 90
            while len(now := replica_pids()) < 2 or min(before) in now:
                assert time.monotonic() < deadline, (before, now)
                time.sleep(0.5)
        finally:
            done.set()
        answers = [answer for one in hammering for answer in one.result()]
    assert {status for status, _, _ in answers} <= {200, 503}
    for status, headers, text in answers:
        if status == 503:
            assert headers["Retry-After"] == "1"
            assert json.loads(text)["error"]["type"] == "overloaded_error"
    assert ask(url, {"question": QUESTION})[0] == 200


def test_idle_sockets_do_not_stop_the_service(url):
    """Bug guarded: 64 requests with one byte of a body each held every slot for two minutes."""
    host, port = url.removeprefix("http://").split(":")
    begun = (
        f"POST /v1/predict HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        "X-Request-Timeout-Seconds: 0\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n{"
    ).encode()
    idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(200)]
    try:
        for connection in idle:
            connection.sendall(begun)
        time.sleep(1)
        started = time.monotonic()
        while (answer := ask(url, {"question": QUESTION}))[0] == 503:
            # as a client does; the replica before this one has just been killed
            assert time.monotonic() - started < 5, answer
            time.sleep(int(answer[1]["Retry-After"]))
        assert answer[0] == 200 and time.monotonic() - started < 5, answer
        assert idle[0].recv(64).startswith(b"HTTP/1.1 408")
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("header", ["X-Request-ID", "X-Session-ID", "serve_multiplexed_model_id"])
def test_bytes_that_serve_cannot_decode_are_no_failure(url, header):
    """Bug guarded: 115 of 13,000 hostile requests were a plain-text 500 of the proxy."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n".encode()
            + header.encode()
            + b": \xff\xfe\r\n\r\n"
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 200")


def test_the_door_stands_in_the_proxies(url):
    """A path outside of HTTP's, `/-/healthz`, stays Serve's own; the rest is ours."""
    with urllib.request.urlopen(f"{url}/-/healthz", timeout=30) as response:
        assert response.read() == b"success"
    for _ in range(3):
        started = time.monotonic()
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as response:
            assert json.load(response) == {"status": "ok"}
        taken = time.monotonic() - started
        time.sleep(1)
    assert taken < 1


@pytest.mark.parametrize(
    ("expected", "told"),
    [(False, "other machines could reach 0.0.0.0"), (True, "this node's environment has no")],
)
def test_a_replica_without_a_key_does_not_start(url, expected, told):
    """`serve run` and `serve deploy` know no serve.host, and a key may be set on the head alone:
    the replica itself must refuse.
    """
    with pytest.raises(UserError, match=told):
        replica_key(ServingRecipe(api_key_env="QCRD_NOT_SET"), expected=expected)


def test_the_proxies_hold_between_replicas_what_the_replicas_would(exported_student):
    """Bug guarded: a proxy held as few as one replica does, and while a new version took over, two
    steady callers and a probe were one too many: a 503 with nobody waiting.
    """

    def queue(**keys):
        application = build({"student": str(exported_student), "max_queued_requests": 5, **keys})
        return application._bound_deployment._deployment_config.max_queued_requests

    assert queue() == 5
    assert queue(replicas=3) == 15
    assert queue(replicas=2, max_replicas=4) == 20
