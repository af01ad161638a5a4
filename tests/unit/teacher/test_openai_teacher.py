"""The openai teacher against a real HTTP server: every way in which an endpoint fails, and that the
key is told to nobody.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import pickle
import socket
import time
from email.utils import formatdate

import pyarrow as pa
import pytest
from openai_server import DROP, HANG, KEY, TEXT, half, reply, serving, status

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, RationaleSet
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.asking import RationaleGenerator, retry_delay_s
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.recipe import GenerationRecipe, OpenAITeacher, Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.teacher import build_teacher, check, probe
from qcrd_ray.teacher.openai_protocol import read_key, read_samples, retry_after


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def recipe(
    server, *, teacher: dict | None = None, sampling: dict | None = None, **generation
) -> Recipe:
    split = {"generate": 1}
    return Recipe(
        name="t",
        run="/nowhere",
        task={"kind": "word_problems"},
        data={"train": split, "validation": split, "test": split},
        teacher={"source": "openai", "base_url": server.url, "model": "a-model", **(teacher or {})},
        student={"scratch": {}},
        sampling={"k": 3, **(sampling or {})},
        generation={"backoff_s": 0.001, "attempts": 3, **generation},
    )


def ask(server, ids: str = "a", **settings) -> list[dict]:
    """The rows of the questions ``ids``, as the stage's actors make them."""
    wanted = recipe(server, **settings)
    teacher = pickle.loads(pickle.dumps(build_teacher(wanted)))  # as it travels to an actor
    rows = [
        {
            "id": f"h-{id}",
            "question_id": id,
            "question": f"{id}: 3 + 5?",
            "choices": [],
            "gold": "8",
        }
        for id in ids
    ]

    async def run() -> list[RationaleSet]:
        try:
            return await RationaleGenerator(wanted, teacher)(
                pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)
            )
        finally:
            for client in teacher._clients:
                await client.aclose()

    sets = [each.row() for each in asyncio.run(run())]
    return pa.Table.from_pylist(sets, schema=RATIONALE_SET_SCHEMA).to_pylist()


def test_k_samples_come_of_one_request_in_the_protocols_words():
    with serving() as server:
        (row,) = ask(
            server,
            sampling={"max_tokens": 99, "stop": ["\n\n"]},
            teacher={"extra_body": {"top_k": 5}},
        )
    assert (row["outcome"], row["vote"], len(row["completions"]), row["attempts"]) == (
        "accepted",
        "8",
        3,
        1,
    )
    assert sum(completion["tokens"] for completion in row["completions"]) == 30
    (body,) = server.requests
    assert [message["role"] for message in body.pop("messages")] == ["user"]
    assert body == {
        "model": "a-model",
        "n": 3,
        "temperature": 0.7,
        "max_tokens": 99,
        "stop": ["\n\n"],
        "top_k": 5,
    }


def test_plain_completions_and_fields_left_out():
    """Reasoning models refuse max_tokens and temperature: null leaves a field of ours out."""
    extra = {"max_tokens": None, "temperature": None, "max_completion_tokens": 999}
    with serving() as server:
        (row,) = ask(server, teacher={"endpoint": "completions", "extra_body": extra})
    (body,) = server.requests
    assert row["outcome"] == "accepted"
    assert body.pop("prompt").endswith("Q: a: 3 + 5?\nA:")
    assert body == {"model": "a-model", "n": 3, "max_completion_tokens": 999}


FAULTS = {
    "429 without Retry-After": (lambda body: status(429, "slow down"), "HTTP 429: slow down"),
    "429 with Retry-After": (
        lambda body: status(429, "slow down", headers={"Retry-After": "0.01"}),
        "HTTP 429: slow down",
    ),
    "500": (lambda body: (500, {}, b"<html>oh no</html>"), "HTTP 500: <html>oh no"),
    "half a body": (half, "no JSON"),
    "no choice": (lambda body: reply(body, choices=0), "list of choices is empty"),
    "an error as an answer": (
        lambda body: {"error": {"message": "upstream is away"}},
        "holds no choices: 'upstream is away'",
    ),
    "another form": (lambda body: {"choices": [7]}, "is no object"),
    "a message that is none": (lambda body: {"choices": [{"message": "red"}]}, "is no object"),
    "a list": (lambda body: (200, {}, b"[1, 2]"), "holds no choices"),
    "brackets by the thousand": (lambda body: (200, {}, b"[" * 200_000), "is no JSON"),
    "a gzip bomb": (
        lambda body: (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * (64 << 20))),
        "is larger than 16 MiB",
    ),
    "no gzip": (
        lambda body: (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        "cannot be unpacked",
    ),
    "packed unasked": (lambda body: (200, {"Content-Encoding": "br"}, b"x"), "packed as 'br'"),
    "parts for a text": (lambda body: reply(body, text=[{"type": "text"}]), "holds parts"),
    "a dropped connection": (lambda body: DROP, "RemoteProtocolError"),
    "no answer at all": (lambda body: HANG, r"generation.request_timeout_s"),
}


def limit_s(fault: str) -> float:
    """Two seconds for what never answers; what does has time to, on a busy machine too."""
    return 2.0 if FAULTS[fault][1] == r"generation.request_timeout_s" else 60.0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_asked_through(fault):
    with serving(
        lambda number, body: FAULTS[fault][0](body) if number == 1 else reply(body)
    ) as server:
        (row,) = ask(server, request_timeout_s=limit_s(fault))
    assert (row["outcome"], row["attempts"], len(server.requests)) == ("accepted", 2, 2)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_fails_its_row_with_the_reason_and_no_other(fault):
    make, told = FAULTS[fault]
    with serving(
        lambda number, body: make(body) if "b: " in json.dumps(body) else reply(body)
    ) as server:
        rows = ask(server, "abc", request_timeout_s=limit_s(fault))
    assert [(row["outcome"], row["attempts"]) for row in rows] == [
        ("accepted", 1),
        ("failed", 3),
        ("accepted", 1),
    ]
    assert told in rows[1]["reason"]


def test_retry_after_is_waited_for():
    with serving(
        lambda number, body: (
            status(429, headers={"Retry-After": "1"}) if number == 1 else reply(body)
        )
    ) as server:
        start = time.monotonic()
        (row,) = ask(server)
    assert row["outcome"] == "accepted"
    assert 1.0 <= time.monotonic() - start < 3.0


def test_waits_double_differ_and_are_bounded():
    """Bug guarded: requests that were refused together came back together, and were refused
    together again.
    """
    settings = GenerationRecipe(backoff_s=1.0, request_timeout_s=100.0)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (30, 60.0)):
        waits = {retry_delay_s(settings, attempt, 0.0) for _ in range(50)}
        assert len(waits) > 10 and most / 2 <= min(waits) <= max(waits) <= most
    assert 100.0 < retry_delay_s(settings, 1, 86_400.0) <= 101.0


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("", 0.0), ("soon", 0.0), ("a date", 3_600.0)],
)
def test_retry_after_in_its_forms(given, seconds):
    given = formatdate(time.time() + 3_600, usegmt=True) if given == "a date" else given
    assert retry_after({"retry-after": given}) == pytest.approx(seconds, abs=60)


def test_an_endpoint_that_gives_fewer_choices_is_asked_for_the_rest():
    with serving(lambda number, body: reply(body, choices=1)) as server:
        (row,) = ask(server)
    assert (row["outcome"], len(row["completions"])) == ("accepted", 3)
    assert [body.get("n", 1) for body in server.requests] == [3, 2, 1]


def test_samples_that_are_paid_for_survive_a_later_failure():
    with serving(lambda number, body: status(500) if number == 2 else reply(body)) as server:
        (row,) = ask(server, teacher={"samples_per_request": 1})
    assert (row["outcome"], row["attempts"], len(row["completions"])) == ("accepted", 2, 3)
    assert len(server.requests) == 4 and all("n" not in body for body in server.requests)


def test_waves_ask_for_what_is_missing_and_a_settled_question_no_more():
    adaptive = {"k": 10, "adaptive": {"threshold": 0.95}}
    with serving() as server:
        (row,) = ask(server, sampling=adaptive, teacher={"samples_per_request": 3})
        assert [body.get("n", 1) for body in server.requests] == [3, 1]
    assert (row["samples_asked"], row["asked_until"]) == (4, "settled")
    seven = [TEXT] * 3 + ["So the answer is 9."] + [TEXT] * 3
    said = iter([*seven[:4], *seven[4:], *seven[4:]])  # the second request fails once

    def script(number, body):
        answer = reply(body)
        for choice in answer["choices"]:
            choice["message"] = choice["message"] | {"content": next(said)}
        return status(500) if number == 2 else answer

    with serving(script) as server:
        (row,) = ask(server, sampling=adaptive)
        assert [body["n"] for body in server.requests] == [4, 3, 3]
        assert all("seed" not in body for body in server.requests)
    assert (row["vote"], row["samples_asked"], row["attempts"]) == ("8", 7, 2)
    assert [each["text"] for each in row["completions"]] == seven


def test_a_seed_in_the_extra_body_and_waves_exclude_each_other():
    with serving() as server, pytest.raises(ValueError, match="the same samples in every wave"):
        recipe(server, sampling={"adaptive": {}}, teacher={"extra_body": {"seed": 1}})


def test_no_usage_block_is_no_error():
    with serving(lambda number, body: reply(body, usage=False)) as server:
        (row,) = ask(server)
    assert row["outcome"] == "accepted"
    assert [completion["tokens"] for completion in row["completions"]] == [0, 0, 0]


def with_usage(body: dict, usage: object) -> tuple[int, dict, bytes]:
    return 200, {}, json.dumps({**reply(body), "usage": usage}).encode()


ODD_BUT_USABLE = {
    "usage is a list": lambda body: with_usage(body, [1]),
    "usage is a text": lambda body: with_usage(body, "30"),
    "counts are texts": lambda body: with_usage(body, {"completion_tokens": "30"}),
    "counts are absurd": lambda body: with_usage(body, {"completion_tokens": 10**12}),
    "half a surrogate pair": lambda body: reply(body, text=TEXT.replace("First", "\ud83d First")),
    "a charset that is none": lambda body: (
        200,
        {"Content-Type": "application/json; charset=rot13"},
        json.dumps(reply(body)).encode(),
    ),
    "gzip": lambda body: (
        200,
        {"Content-Encoding": "gzip"},
        gzip.compress(json.dumps(reply(body)).encode()),
    ),
}


@pytest.mark.parametrize("odd", ODD_BUT_USABLE)
def test_an_odd_answer_that_can_be_read_is_taken(odd):
    """Bug guarded: one answer with `usage` a text, or half a surrogate pair in it, ended the whole
    job, and each rerun paid for everything again.
    """
    with serving(
        lambda number, body: ODD_BUT_USABLE[odd](body) if "b: " in json.dumps(body) else reply(body)
    ) as server:
        rows = ask(server, "abc")
    assert [(row["outcome"], row["vote"]) for row in rows] == [("accepted", "8")] * 3
    assert len(server.requests) == 3
    text = rows[1]["completions"][0]["text"]
    assert text == (TEXT if odd != "half a surrogate pair" else "\N{REPLACEMENT CHARACTER} " + TEXT)


STOPS = {
    "no money": (
        status(429, "You exceeded your quota", code="insufficient_quota"),
        "nothing left to spend",
    ),
    "payment required": (status(402), "nothing left to spend"),
    "no such model": (
        status(404, "The model does not exist"),
        "there is no model 'a-model' at http",
    ),
    "a field": (
        status(400, "Unsupported value", param="temperature"),
        r"refuses 'temperature'; change it under sampling",
    ),
    "an extra field": (status(400, "Unknown parameter", param="tpo_k"), "refuses 'tpo_k'"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_what_no_question_can_pass_stops_the_teacher_at_once(stop):
    """Bug guarded: a million questions, each asked four times of an endpoint that cannot answer
    any.
    """
    answer, told = STOPS[stop]
    with serving(lambda number, body: answer) as server:
        rows = ask(server, "abcdef", requests_in_flight=1, teacher={"extra_body": {"tpo_k": 1}})
    assert len(server.requests) == 1
    assert {(row["outcome"], row["attempts"]) for row in rows} == {("failed", 0)}
    assert all(told in row["reason"] for row in rows)


def test_a_wrong_key_stops_the_teacher_and_is_not_repeated(monkeypatch, caplog):
    """The server puts the key that it refuses into its error, as some do."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    with serving() as server:
        rows = ask(server, "abc", requests_in_flight=1)
    assert len(server.requests) == 1
    assert {row["outcome"] for row in rows} == {"failed"}
    assert "refuses the key" in rows[0]["reason"] and "Bearer <key>" in rows[0]["reason"]
    assert "sk-of-somebody-else" not in caplog.text + json.dumps(rows)


@pytest.mark.parametrize("where", ["an answer", "an error", "a broken header"])
def test_a_key_that_the_server_quotes_reaches_no_row(where, monkeypatch):
    """Bugs guarded: a key with a slash was looked for as it is, and PHP writes `\\/`; what httpx
    said of a broken header was kept whole.
    """
    key = "sk-01234/56789/abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", key)

    def script(number, body):
        if where == "a broken header":
            return 200, {"Not a name": f"Bearer {key}"}, b"{}"
        said = json.dumps(reply(body, text=f"I got {key}. So the answer is 8."))
        sent = said.replace("/", "\\/").encode()
        return 200 if where == "an answer" else 500, {}, sent

    with serving(script) as server:
        server.keys = [key]
        (row,) = ask(server)
    assert row["outcome"] == ("accepted" if where == "an answer" else "failed")
    assert "<key>" in json.dumps(row) and "56789" not in json.dumps(row)


def test_an_unset_variable_sends_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving() as server:
        assert ask(server)[0]["outcome"] == "accepted"
        assert "without a key ($OPENAI_API_KEY is unset)" in check(recipe(server).teacher)


@pytest.mark.parametrize(
    "refusal",
    [
        status(
            400,
            "This model's maximum context length is 4096 tokens",
            code="context_length_exceeded",
            param="messages",
        ),
        status(400, "'max_tokens' is too large for the context", param="max_tokens"),
        status(422, "an unpaired surrogate"),
        status(413),
    ],
)
def test_a_question_that_is_refused_is_rejected_and_not_asked_again(refusal):
    with serving(
        lambda number, body: refusal if "b: " in json.dumps(body) else reply(body)
    ) as server:
        rows = ask(server, "abc")
    assert [row["outcome"] for row in rows] == ["accepted", "rejected_input", "accepted"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_in_a_field_of_its_own(field):
    with serving(lambda number, body: reply(body, **{field: "Hm, 9? No, 8."})) as server:
        (row,) = ask(server)
    assert {(c["thinking"], c["text"], c["answer"]) for c in row["completions"]} == {
        ("Hm, 9? No, 8.", TEXT, "8")
    }


def test_a_filtered_text_has_no_vote_and_a_refusal_is_kept_as_text():
    def script(number, body):
        return (
            reply(body, finish_reason="content_filter")
            if number == 1
            else reply(body, text=None, refusal="I cannot.")
        )

    with serving(script) as server:
        first, second = ask(server, "ab", requests_in_flight=1)
    assert (first["outcome"], first["reason"]) == ("unparsed", "cut off by a content filter")
    assert (second["outcome"], second["completions"][0]["text"]) == ("unparsed", "I cannot.")


def test_tokens_of_a_response_are_shared_out_and_add_up():
    body = {"choices": [{"text": "x"}] * 3, "usage": {"prompt_tokens": 1, "completion_tokens": 8}}
    assert [completion.tokens for completion in read_samples(json.dumps(body)).completions] == [
        3,
        3,
        2,
    ]


def test_the_key_does_not_travel_with_the_teacher(caplog):
    caplog.set_level(logging.DEBUG)  # httpx and httpcore tell of every request there
    with serving() as server:
        teacher = build_teacher(recipe(server))
        asyncio.run(
            teacher._request([{"role": "user", "content": "?"}], n=1)
        )  # the loop is gone, the client is not
        assert teacher._key == KEY
        assert KEY.encode() not in pickle.dumps(teacher)
        assert (
            KEY
            not in repr(teacher)
            + str(teacher.identity())
            + check(recipe(server).teacher)
            + caplog.text
        )
        assert not pickle.loads(pickle.dumps(teacher))._clients


def test_what_asks_again_and_what_does_not():
    """A key, a retry or a limit changes no answer; another model, endpoint or field does."""
    with serving() as server:
        identity = build_teacher(recipe(server)).identity()
        same = {"api_key_env": "OTHER", "samples_per_request": 1, "max_spent_tokens": 5}
        assert build_teacher(recipe(server, teacher=same)).identity() == identity
        for other in (
            {"model": "b"},
            {"base_url": "http://elsewhere/v1"},
            {"endpoint": "completions"},
            {"extra_body": {"top_k": 1}},
        ):
            assert build_teacher(recipe(server, teacher=other)).identity() != identity


class TestKey:
    def given(self, **changes) -> OpenAITeacher:
        return OpenAITeacher(source="openai", model="m", **changes)

    def test_a_file_goes_before_the_variable(self, tmp_path):
        (tmp_path / "key").write_text("sk-from-file\n")
        assert read_key(self.given(api_key_file=str(tmp_path / "key"))) == "sk-from-file"
        assert read_key(self.given()) == KEY

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"two words", b"two\nlines", "sk-é".encode(), b"\xff"]
    )
    def test_what_is_no_key_is_refused_and_not_repeated(self, content, tmp_path):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(UserError, match=r"teacher.*key") as refused:
            read_key(self.given(api_key_file=str(tmp_path / "key")))
        assert not content.strip() or content.decode("utf-8", "replace") not in str(refused.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"/none cannot be read on .*: No such file"):
            read_key(self.given(api_key_file=str(tmp_path / "none")))

    def test_a_node_without_the_file_fails_its_rows_and_not_the_job(self, tmp_path):
        with serving() as server:
            (row,) = ask(server, teacher={"api_key_file": str(tmp_path / "none")})
        assert (row["outcome"], row["attempts"]) == ("failed", 0)
        assert "cannot be read" in row["reason"]


class TestProbe:
    def test_a_listed_model_costs_nothing(self):
        with serving() as server:
            assert "has a-model" in probe(recipe(server).teacher)
            assert (server.lists, server.requests) == (["/v1/models"], [])

    @pytest.mark.parametrize("models", [["another"], []])
    def test_an_endpoint_that_does_not_list_it_is_asked_for_one_token(self, models):
        with serving() as server:
            server.models = models
            assert "answers (HTTP 200)" in probe(recipe(server).teacher)
            assert [body["max_tokens"] for body in server.requests] == [1]

    def test_one_token_by_whichever_name(self):
        with serving() as server:
            server.models = []
            probe(
                recipe(
                    server,
                    teacher={"extra_body": {"max_tokens": None, "max_completion_tokens": 9_999}},
                ).teacher
            )
            (body,) = server.requests
            assert body["max_completion_tokens"] == 1 and "max_tokens" not in body

    def test_a_model_that_is_not_there_is_told_before_the_job(self):
        with serving(
            lambda number, body: status(404, "The model `a-model` does not exist")
        ) as server:
            server.models = ["another"]
            with pytest.raises(
                UserError, match=r"there is no model 'a-model' at .*/v1/chat/completions"
            ):
                probe(recipe(server).teacher)

    def test_a_wrong_url_is_told_before_the_job(self):
        with (
            serving(lambda number, body: status(404, "Not Found")) as server,
            pytest.raises(UserError, match=r"teacher\.base_url"),
        ):
            probe(recipe(server, teacher={"base_url": server.url.removesuffix("/v1")}).teacher)

    def test_a_wrong_key_is_told_before_the_job_and_not_repeated(self, monkeypatch, caplog):
        caplog.set_level(logging.DEBUG)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
        with (
            serving() as server,
            pytest.raises(UserError, match=r"refuses the key(?s:.*)\$OPENAI_API_KEY") as refused,
        ):
            probe(recipe(server).teacher)
        assert "sk-of-somebody-else" not in str(refused.value) + caplog.text
        assert server.requests == []

    def test_nobody_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        teacher = OpenAITeacher(source="openai", model="m", base_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(
            UserError, match=rf"nobody answers at http://127.0.0.1:{port}/v1: ConnectError"
        ):
            probe(teacher)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("base_url: https://me:hunter2@host/v1", "neither a user nor a query"),
        ("base_url: 'https://host/v1?key=hunter2'", "neither a user nor a query"),
        ("base_url: host/v1", "must start with https://"),
        ("api_key_env: sk-hunter2", "the name of a variable"),
        ("extra_body: {n: 3, stream: true}", "cannot hold n, stream"),
        ("extra_body: {temperature: 0.1}", "cannot set temperature: say it under sampling"),
        ("extra_body: {seed: 1}, samples_per_request: 1", "the same samples again and again"),
    ],
)
def test_what_a_recipe_may_not_say(given, told, tmp_path):
    """A key in the wrong place would be written into the run folder; it is refused, and not
    repeated in the error.
    """
    path = tmp_path / "recipe.yaml"
    data = "{train: {generate: 1}, validation: {generate: 1}, test: {generate: 1}}"
    teacher = f"{{source: openai, model: m, {given}}}"
    path.write_text(
        f"name: t\nrun: /r\ntask: {{kind: word_problems}}\ndata: {data}\nteacher:"
        f" {teacher}\nstudent: {{scratch: {{}}}}\n"
    )
    with pytest.raises(UserError) as refused:
        load_recipe(path)
    assert told in str(refused.value) and "hunter2" not in str(refused.value)


def test_one_question_a_request():
    with serving() as server, pytest.raises(ValueError, match="questions_per_request"):
        recipe(server, questions_per_request=8)
