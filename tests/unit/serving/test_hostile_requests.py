"""Large, wrong and slow requests: each is answered soon and cheaply, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from endpoint_tiny import QUESTION, client, load

from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.admission import MAX_HEADER_BYTES, MAX_URL_BYTES, Admission
from qcrd_ray.serving.bounded_json import MAX_DEPTH, MAX_VALUES
from qcrd_ray.serving.http_errors import MAX_DETAILS

MIB = 1 << 20
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def student(exported_student):
    return load(exported_student)


def at_once(asks):
    """A student that takes no time, so that what is measured is the endpoint's own work."""
    answer = HeadAnswer(text="7", answer="7", rationale=None, tokens=1, finish_reason="stop")
    return [[answer] * ask.sampling.n for ask in asks]


def many(item: str, *, first="[", last="]", size=MIB) -> bytes:
    return f"{first}{','.join([item] * ((size - 200) // (len(item) + 1)))}{last}".encode()


def fields(count: int) -> str:
    return ",".join(f'"k{i}":1' for i in range(count))


HASHES = "#" * 15_000
ATTACKS = {
    "half a million wrong questions": ("predict", many("1"), 413),
    "more wrong questions than are told": ("predict", many("1", size=15_000), 422),
    "too many right questions": ("predict", many('{"question":"a"}', size=60_000), 422),
    "the most characters to tokenise": (
        "predict",
        json.dumps([{"question": HASHES}] * 64).encode(),
        200,
    ),
    "the same for OpenAI": (
        "completions",
        json.dumps({"model": "student", "prompt": [HASHES] * 64}).encode(),
        400,
    ),
    "prompts of one letter": (
        "completions",
        many('"a"', first='{"model":"student","prompt":[', last="]}"),
        413,
    ),
    "as many prompts as values are taken": (
        "completions",
        many('"a"', first='{"model":"student","prompt":[', last="]}", size=35_000),
        400,
    ),
    "wrong messages": (
        "chat/completions",
        many("1", first='{"model":"student","messages":[', last="]}", size=15_000),
        400,
    ),
    "unknown fields": ("predict", f"{{{fields(80_000)}}}".encode(), 413),
    "fewer unknown fields": ("predict", f"{{{fields(9_000)}}}".encode(), 422),
    "brackets": ("predict", b"[" * MIB, 400),
    "closed brackets": ("predict", b"[" * 900 + b"]" * 900, 400),
    "a number": ("predict", b"9" * MIB, 400),
    "a fraction": ("predict", b"0." + b"9" * (MIB - 2), 422),
    "a question": ("predict", json.dumps({"question": "x" * (MIB - 20)}).encode(), 422),
    "halves of surrogate pairs": (
        "predict",
        b'{"question":"' + b"\\ud800" * 170_000 + b'"}',
        400,
    ),
    "no JSON": ("predict", b"\xff" * MIB, 400),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_mebibyte_of_anything_is_answered_soon_and_blocks_nobody(student, attack):
    """Bug guarded: `[1,1,1,...]` blocked everybody for 50 s, was answered with 52 MiB of errors,
    and eight at once killed the replica.

    Counted in CPU time, which a busy machine does not change.
    """
    path, body, expected = ATTACKS[attack]
    app = client(student, write=at_once).app
    blocked = 0.0

    async def watch():
        nonlocal blocked
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            blocked = max(blocked, time.thread_time() - before)

    async def attacked():
        watching = asyncio.create_task(watch())
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as caller:
            await caller.post("/v1/predict", json={"question": QUESTION})  # what is made lazily
            nonlocal blocked
            blocked, started = 0.0, time.process_time()
            got = await caller.post(f"/v1/{path}", content=body, headers=JSON, timeout=60)
            taken = time.process_time() - started
        watching.cancel()
        return got, taken

    got, taken = asyncio.run(attacked())
    assert got.status_code == expected, got.text[:300]
    assert blocked < 0.2 and taken < 2
    if expected != 200:
        assert len(got.content) < 4_000 and len(got.json()["error"]["details"]) <= MAX_DETAILS


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("predict", {"question": "half \ud800"}, "question"),
        ("predict", [{"question": QUESTION}, {"question": QUESTION, "choices": ["\udfff"]}], "1"),
        ("completions", {"model": "student", "prompt": ["a", "\ud800"]}, "prompt"),
        (
            "chat/completions",
            {"model": "student", "messages": [{"role": "user", "content": "\ud800"}]},
            "messages",
        ),
        (
            "chat/completions",
            {
                "model": "student",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}],
            },
            "messages",
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_the_callers_mistake(student, path, body, where):
    """Bug guarded: in a chat's content it was 500, "this is not the request's fault"."""
    api = client(student, write=at_once)
    for sent in (json.dumps(body), json.dumps(body, ensure_ascii=False)):
        got = api.post(f"/v1/{path}", content=sent.encode(errors="surrogatepass"), headers=JSON)
        error = got.json()["error"]
        assert got.status_code == 400 and "surrogate" in error["message"]
        assert error["param"] == where and error["details"][0]["where"].startswith("body.")


def test_values_and_depth_are_taken_up_to_their_limit(student):
    """A guard that refuses what a schema would take is no guard."""
    api = client(student, write=at_once, max_questions=MAX_VALUES)
    fits = [{"question": "a"}] * ((MAX_VALUES - 1) // 2)
    assert api.post("/v1/predict", json=fits[:2_000]).status_code == 200
    assert "values" not in api.post("/v1/predict", json=[*fits[1:], {"question": 1}]).text
    assert "values" in api.post("/v1/predict", json=[*fits, {"question": 1}]).text
    deep = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert "nested" not in api.post("/v1/predict", json=deep).text
    assert "nested" in api.post("/v1/predict", json=[deep]).text


def test_an_unknown_fields_name_is_told_only_if_it_is_a_short_word(student):
    """Errors must not become a mirror of what a stranger sends."""
    api = client(student)
    for name, told in (
        ("qestion", True),
        ("<script>", False),
        ("x" * 41, False),
        ("\u00e9", False),
    ):
        refused = api.post("/v1/predict", json={"question": QUESTION, name: 1})
        assert refused.status_code == 422 and (name in refused.text) is told


@pytest.mark.parametrize("temperature", [1e-38, 1e-300, 0.009])
def test_a_temperature_that_overflows_the_logits(student, temperature):
    """Bug guarded: it was answered with nonsense and 200."""
    api = client(student)
    asked = {"question": QUESTION, "samples": 2, "temperature": temperature}
    assert api.post("/v1/predict", json=asked).status_code == 422
    asked = {"model": "student", "prompt": QUESTION}
    greedy, cold = (
        api.post("/v1/completions", json=asked | extra).json()["choices"][0]["text"]
        for extra in ({}, {"temperature": temperature})
    )
    assert cold == greedy


# --- the queue, and what is slow ---


def admission(**options):
    """An application of nothing but the queue, whose inside waits until it is released."""
    release, inside = asyncio.Event(), []

    async def app(scope, receive, send):
        message = await receive()
        inside.append(message.get("body"))
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    limits = {"places": 2, "max_bytes": 100, "body_timeout_s": 0.2} | options
    return Admission(app, **limits), inside, release


async def asked(app, messages, *, method="POST"):
    """(status, headers) of a request whose body comes as ``messages``, and then never more."""
    told, left = [], list(messages)

    async def receive():
        if left:
            return left.pop(0)
        await asyncio.Event().wait()

    async def send(message):
        told.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": []}
    await app(scope, receive, send)
    if not told:
        return None, {}
    return told[0]["status"], {name.decode(): value for name, value in told[0]["headers"]}


WHOLE = [{"type": "http.request", "body": b"{}", "more_body": False}]
BEGUN = [{"type": "http.request", "body": b"{", "more_body": True}]


def test_beyond_the_queue_is_503_at_once_and_probes_do_not_queue():
    """Bug guarded: a probe waited 15 s behind 128 callers, and would have restarted the replica at
    its peak.
    """

    async def walk():
        app, inside, release = admission()
        taken = [asyncio.create_task(asked(app, WHOLE)) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers = await asyncio.wait_for(asked(app, BEGUN), 0.1)
        assert status == 503 and headers["retry-after"] == b"1"
        assert headers["content-type"] == b"application/json"
        probe = asyncio.create_task(asked(app, WHOLE, method="GET"))
        await asyncio.sleep(0)
        assert len(inside) == 3, "a GET came in"
        release.set()
        assert [status for status, _ in await asyncio.gather(*taken, probe)] == [200] * 3
        assert (await asked(app, WHOLE))[0] == 200, "its places are free again"

    asyncio.run(walk())


def test_a_body_that_does_not_come_holds_no_place_and_ends():
    """Bug guarded: 64 sockets with one byte of a body each stopped the service for two minutes."""

    async def walk():
        app, inside, release = admission()
        slow = [asyncio.create_task(asked(app, BEGUN)) for _ in range(50)]
        await asyncio.sleep(0)
        release.set()
        assert (await asyncio.wait_for(asked(app, WHOLE), 0.1))[0] == 200
        started = time.monotonic()
        answers = await asyncio.gather(*slow)
        assert {status for status, _ in answers} == {408} and time.monotonic() - started < 2
        assert all("retry-after" in headers for _, headers in answers)
        assert inside == [b"{}"], "no part of a body goes further"

    asyncio.run(walk())


def test_a_body_is_cut_off_at_its_limit_and_a_caller_may_leave():
    async def walk():
        app, inside, _ = admission()
        endless = [{"type": "http.request", "body": b"x" * 60, "more_body": True}] * 2
        assert (await asked(app, endless))[0] == 413
        assert (await asked(app, [*BEGUN, {"type": "http.disconnect"}]))[0] is None
        assert not inside and app.taken == 0

    asyncio.run(walk())


def test_the_application_has_this_queue(student):
    """503 and 408 have the form of every error, and the queue's size comes from the recipe."""
    import threading

    go_on, busy = threading.Event(), threading.Event()

    def write(asks):
        busy.set()
        go_on.wait(30)
        return at_once(asks)

    api = client(student, write=write, max_queued_requests=1)
    with api:  # one event loop for all requests
        first = threading.Thread(target=api.post, args=("/v1/predict",), kwargs={"json": ASKED})
        first.start()
        assert busy.wait(30)
        refused = api.post("/v1/predict", json=ASKED)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "overloaded_error"
        for path in ("/healthz", "/metrics", "/v1/task"):
            assert api.get(path).status_code == 200
        go_on.set()
        first.join()
        assert api.post("/v1/predict", json=ASKED).status_code == 200


ASKED = {"question": QUESTION}


def test_the_key_is_read_before_anything_waits(student):
    """Bug guarded: strangers queued, and their bodies were waited for."""
    app = client(student, key="k", max_queued_requests=1).app
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "raw_path": b"/v1/predict",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    told = []

    async def never():
        raise AssertionError("the body was asked for")

    async def send(message):
        told.append(message)

    asyncio.run(app(scope, never, send))
    assert told[0]["status"] == 401


def test_urls_and_headers_are_bounded_before_the_key(student):
    api = client(student, key="k")
    assert api.get("/healthz?" + "x" * MAX_URL_BYTES).status_code == 414
    assert api.get("/healthz", headers={"x": "y" * MAX_HEADER_BYTES}).status_code == 431
    assert api.get("/healthz?" + "x" * 4_000, headers={"x": "y" * 4_000}).status_code == 200


# --- names and pages ---


@pytest.mark.parametrize(
    ("host", "origin", "known"),
    [
        ("localhost:8000", None, True),
        ("127.0.0.1:8000", None, True),
        ("[::1]:8000", None, True),
        ("10.1.2.3", None, True),
        ("LocalHost", "http://localhost", True),
        ("localhost:8000", "http://localhost:8000", True),
        ("student.example.org", "https://student.example.org", True),
        ("10.0.0.7:8000", "https://student.example.org", True),
        ("evil.example", None, False),
        ("evil.example:8000", "http://evil.example:8000", False),
        ("localhost.evil.example", None, False),
        ("localhost:8000", "http://evil.example", False),
        ("localhost:8000", "http://localhost:3000", False),
        ("localhost:8000", "null", False),
        ("127.0.0.1.evil.example", None, False),
        ("[", None, False),
        ("", None, False),
    ],
)
def test_a_strangers_page_does_not_reach_the_loopback(student, host, origin, known):
    """Bug guarded: DNS rebinding. A name of the page's owner that points to 127.0.0.1 was answered,
    with the page's Origin.
    """
    api = client(student, write=at_once, allowed_hosts=["student.example.org"])
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    got = api.post("/v1/predict", json=ASKED, headers=headers)
    assert got.status_code == (200 if known else 403)
    if not known:
        assert got.json()["error"]["type"] == "permission_error" and "example" not in got.text


def test_a_key_stands_for_the_hosts_names_unless_some_are_given(student):
    headers = {"Host": "any.example", "Authorization": "Bearer k"}
    assert client(student, key="k").get("/v1/task", headers=headers).status_code == 200
    named = client(student, key="k", allowed_hosts=["student.example.org"])
    assert named.get("/v1/task", headers=headers).status_code == 403


def test_the_defaults_hold_the_busiest_documented_load():
    """256 callers find room, so that throughput at 256 is not that of refusals."""
    assert ServingRecipe().max_queued_requests >= 256
