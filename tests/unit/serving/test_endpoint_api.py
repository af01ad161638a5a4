"""The endpoint's application around a tiny student: what a client may send, and what it gets. No
Ray, real HTTP semantics.
"""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from endpoint_tiny import QUESTION, client, load, with_judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CHAT = {"model": "student", "messages": [{"role": "user", "content": QUESTION}]}
TEXT = {"model": "student", "prompt": QUESTION}


@pytest.fixture(scope="module")
def student(exported_student):
    return load(exported_student)


@pytest.fixture(scope="module")
def api(student):
    return client(student)


def test_predict_says_what_the_heads_say(api):
    alone = api.post(
        "/v1/predict", json={"question": QUESTION, "rationale": True, "quality": True}
    ).json()
    assert 0 <= alone["quality"] <= 1 and alone["question_cut"] is False
    label = api.post("/v1/completions", json={**TEXT, "model": "student:label"}).json()
    assert label["choices"][0]["text"] == alone["text"]
    chat = api.post("/v1/chat/completions", json=CHAT).json()
    assert alone["rationale"] in chat["choices"][0]["message"]["content"]


def test_samples_vote_and_the_same_seed_votes_the_same(api):
    body = {"question": QUESTION, "samples": 8, "temperature": 2.0, "seed": 1}
    first, again = (api.post("/v1/predict", json=body).json() for _ in range(2))
    assert first == again
    assert sum(first["votes"].values()) <= 8


@pytest.fixture(scope="module")
def judged(exported_student, tmp_path_factory):
    """A student whose folder holds a judge."""
    return load(with_judge(exported_student, tmp_path_factory.mktemp("judged") / "student"))


def test_with_a_judge_samples_are_weighed_unless_a_plain_vote_is_asked_for(judged, api):
    body = {"question": QUESTION, "samples": 8, "seed": 1}
    weighed, plain, without = (
        one.post("/v1/predict", json=body | extra).json()
        for one, extra in (
            (client(judged), {}),
            (client(judged), {"vote": "plain"}),
            (api, {"temperature": 1.5, "top_p": 0.9}),
        )
    )
    assert weighed["vote_kind"] == "judged" and plain["vote_kind"] == "plain"
    assert plain == without, "its samples are drawn as the judge's, and the plain vote is the same"
    for answer in (weighed, plain):
        assert [each["text"] for each in answer["samples"]] == [
            each["text"] for each in plain["samples"]
        ], "the votes differ, and their samples do not"
        assert sum(each["weight"] for each in answer["samples"]) == pytest.approx(1)
    scores = [each["score"] for each in weighed["samples"]]
    assert all(0 < score < 1 for score in scores) and len(set(scores)) > 1
    assert {each["score"] for each in plain["samples"]} == {None}
    by_answer = Counter()
    for each in weighed["samples"]:
        by_answer[each["answer"]] += each["weight"]
    del by_answer[None]
    assert weighed["shares"] == pytest.approx(dict(by_answer))


def test_a_judged_vote_that_no_judge_can_weigh_is_refused(api):
    """Answered by a plain vote instead, its confidence would not be the one that was asked for."""
    refused = api.post("/v1/predict", json={"question": QUESTION, "samples": 4, "vote": "judged"})
    assert refused.status_code == 422
    assert "holds no judge" in refused.json()["error"]["message"]
    plain = api.post("/v1/predict", json={"question": QUESTION, "samples": 4, "vote": "plain"})
    assert plain.json()["vote_kind"] == "plain"
    nobody = api.post("/v1/predict", json={"question": QUESTION, "vote": "plain"})
    assert nobody.status_code == 422 and "`samples`" in nobody.json()["error"]["message"]


def test_the_task_tells_the_vote_that_the_judge_is_calibrated_for(judged, api):
    assert api.get("/v1/task").json()["judge"] is None
    usual = {
        "samples": 4,
        "temperature": 1.5,
        "top_p": 0.9,
        "inputs": ["student", "label", "steps"],
    }
    assert client(judged).get("/v1/task").json()["judge"] == usual
    assert client(judged, max_questions=3).get("/v1/task").json()["judge"]["samples"] == 3


def test_the_page_offers_the_questions_of_the_recipe_or_else_of_the_folder(judged, api):
    (own,) = api.get("/v1/task").json()["to_try"]
    assert own == {key: judged.folder.facts["example"][key] for key in ("question", "choices")}
    mine = {"question": "Who lives in a den?", "choices": ["a fox", "a fish"]}
    assert client(judged, examples=[mine]).get("/v1/task").json()["to_try"] == [mine]


def test_what_the_judge_reads_is_counted(judged):
    """The second pass is paid for too."""
    api = client(judged)
    answer = api.post("/v1/predict", json={"question": QUESTION, "samples": 4}).json()
    drawn = sum(each["tokens"] for each in answer["samples"])
    assert drawn > 4
    assert f'qcrd_tokens_total{{kind="judged",replica="one"}} {drawn:.1f}' in (
        api.get("/metrics").text
    )


def test_a_question_that_is_not_read_to_its_end_is_told(api):
    """A cut question is answered as if it ended there: silently, that answer looks as good as
    any.
    """
    long = f"{QUESTION} " * 12
    assert api.post("/v1/predict", json={"question": long}).json()["question_cut"] is True
    refused = api.post("/v1/completions", json={**TEXT, "prompt": long})
    assert (
        refused.status_code == 400 and refused.json()["error"]["code"] == "context_length_exceeded"
    )


# --- OpenAI-compatible routes ---


def test_n_prompts_and_usage(api):
    done = api.post(
        "/v1/completions",
        json={**TEXT, "prompt": [QUESTION, "How many?"], "n": 3, "temperature": 1.0, "seed": 5},
    ).json()
    assert [choice["index"] for choice in done["choices"]] == list(range(6))
    assert (
        done["usage"]["total_tokens"]
        == done["usage"]["prompt_tokens"] + done["usage"]["completion_tokens"]
    )
    assert done["object"] == "text_completion" and done["system_fingerprint"].startswith("fp_")


def test_a_seed_repeats_and_none_does_not(api):
    """One seed for all unseeded requests of a batch would give two clients, or two equal prompts,
    the same 'random' text.
    """
    body = {**TEXT, "prompt": [QUESTION] * 4, "temperature": 2.0, "max_tokens": 12}
    seeded = [
        [c["text"] for c in api.post("/v1/completions", json={**body, "seed": 3}).json()["choices"]]
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1] and len(set(seeded[0])) == 1
    fresh = [c["text"] for c in api.post("/v1/completions", json=body).json()["choices"]]
    assert len(set(fresh)) > 1


def test_equal_unseeded_asks_of_one_batch_are_drawn_apart(student):
    from qcrd_ray.data.records import Question
    from qcrd_ray.inference.answering import AnswerRequest, Sampling

    sampling = Sampling(max_tokens=12, temperature=2.0, seed=None)
    ask = AnswerRequest(
        question=Question(id="1", question=QUESTION), head="rationale", sampling=sampling
    )
    assert len({texts[0].text for texts in student.generate([ask] * 8)}) > 1


def test_max_tokens_and_stop(api):
    short = api.post("/v1/completions", json={**TEXT, "max_tokens": 2}).json()
    assert (
        short["usage"]["completion_tokens"] <= 2
        and short["choices"][0]["finish_reason"] == "length"
    )
    assert (
        api.post("/v1/chat/completions", json={**CHAT, "max_completion_tokens": 2}).json()["usage"][
            "completion_tokens"
        ]
        <= 2
    )
    whole = api.post("/v1/completions", json=TEXT).json()["choices"][0]["text"]
    assert len(whole) > 2
    cut = api.post("/v1/completions", json={**TEXT, "stop": ["never there", whole[2]]}).json()[
        "choices"
    ][0]
    assert cut["text"] == whole[: whole.index(whole[2])] and cut["finish_reason"] == "stop"


def events(response):
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]" and response.headers["content-type"].startswith(
        "text/event-stream"
    )
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_adds_up_to_the_whole(api):
    whole = api.post(
        "/v1/chat/completions", json={**CHAT, "n": 2, "temperature": 1.5, "seed": 1}
    ).json()
    streamed = events(
        api.post(
            "/v1/chat/completions",
            json={
                **CHAT,
                "n": 2,
                "temperature": 1.5,
                "seed": 1,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        )
    )
    assert streamed[-1]["choices"] == [] and streamed[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        mine = [c for event in streamed for c in event["choices"] if c["index"] == choice["index"]]
        assert "".join(c["delta"].get("content", "") for c in mine) == choice["message"]["content"]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [choice["finish_reason"]]
    texts = events(api.post("/v1/completions", json={**TEXT, "stream": True}))
    assert (
        "".join(e["choices"][0]["text"] for e in texts)
        == api.post("/v1/completions", json=TEXT).json()["choices"][0]["text"]
    )


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        (
            "chat/completions",
            {"messages": [{"role": "king", "content": "Be brief."}, *CHAT["messages"]]},
            "messages",
        ),
        (
            "chat/completions",
            {"messages": [*CHAT["messages"], {"role": "assistant", "content": "7"}]},
            "messages",
        ),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": " "}]}, "messages"),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages",
        ),
        ("chat/completions", {"tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("chat/completions", {"logprobs": True}, "logprobs"),
        ("completions", {"prompt": [1, 2, 3]}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": [QUESTION] * 13, "n": 5}, "n"),
        ("completions", {"echo": True}, "echo"),
        ("completions", {"best_of": 3}, "best_of"),
        ("completions", {"logprobs": 5}, "logprobs"),
        ("completions", {"temperature": 2.5}, "temperature"),
        ("completions", {"top_p": 0}, "top_p"),
        ("completions", {"n": 0}, "n"),
        ("completions", {"max_tokens": 0}, "max_tokens"),
        ("completions", {"presence_penalty": 1}, "presence_penalty"),
        ("completions", {"stop": [""]}, "stop"),
        ("completions", {"seed": -1}, "seed"),
        ("completions", {"seed": True}, "seed"),  # was taken as 1, against the description
        ("completions", {"guided_json": {}}, "guided_json"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(api, path, change, param):
    refused = api.post(f"/v1/{path}", json={**(CHAT if "chat" in path else TEXT), **change})
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param


def test_what_asks_for_nothing_is_taken(api):
    """Clients send every field that they know, empty."""
    nothing = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "user": "me",
        "stop": None,
        "n": None,
        "temperature": None,
    }
    assert (
        api.post(
            "/v1/completions", json={**TEXT, **nothing, "echo": False, "suffix": None, "best_of": 1}
        ).status_code
        == 200
    )
    turns = [
        {"role": "user", "content": "Hm?"},
        {"role": "assistant", "content": None, "refusal": None},
    ]
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    chat = {
        **CHAT,
        **nothing,
        "messages": turns + parts,
        "tools": [],
        "response_format": {"type": "text"},
        "logprobs": False,
    }
    done = api.post("/v1/chat/completions", json=chat)
    assert done.json()["choices"] == api.post("/v1/chat/completions", json=CHAT).json()["choices"]


def test_models(api):
    assert [one["id"] for one in api.get("/v1/models").json()["data"]] == [
        "student",
        "student:label",
    ]
    assert api.get("/v1/models/student:label").json()["id"] == "student:label"
    for unknown in (
        api.get("/v1/models/gpt-4"),
        api.post("/v1/completions", json={**TEXT, "model": "gpt-4"}),
    ):
        assert unknown.status_code == 404 and unknown.json()["error"]["code"] == "model_not_found"


# --- wrong input, limits ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = [
    "question",
    "choices",
    "samples",
    "vote",
    "temperature",
    "top_p",
    "seed",
    "model",
    "prompt",
    "messages",
    "n",
    "stop",
    "stream",
]


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_body_makes_it_fail(api, data):
    """Whatever JSON arrives, around a valid request or not: never a 500, always the one form."""
    path, valid = data.draw(
        st.sampled_from(
            [("predict", {"question": QUESTION}), ("completions", TEXT), ("chat/completions", CHAT)]
        )
    )
    wild = st.dictionaries(
        st.sampled_from([*FIELDS, "stream_options", "max_tokens", "rationale"]),
        json_values,
        max_size=3,
    )
    body = data.draw(json_values | wild.map(lambda change: {**valid, **change}))
    sent = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode(
        "utf-8", errors="surrogatepass"
    )
    got = api.post(f"/v1/{path}", content=sent, headers={"Content-Type": "application/json"})
    assert got.status_code in (200, 400, 404, 413, 422), (body, got.text)
    if got.status_code != 200:
        assert set(got.json()) == {"error"} and got.json()["error"]["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have(api, number):
    body = f'{{"question": "{QUESTION}", "samples": 2, "temperature": {number}}}'
    assert (
        api.post(
            "/v1/predict", content=body, headers={"Content-Type": "application/json"}
        ).status_code
        == 422
    )


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json(api, kind):
    """Any web page can have its reader's browser post such a body to the reader's own loopback, and
    curl -d does it unasked.
    """
    refused = api.post(
        "/v1/predict",
        content=json.dumps({"question": QUESTION}),
        headers={"Content-Type": kind} if kind else {},
    )
    assert (
        refused.status_code == 415
        and "Content-Type: application/json" in refused.json()["error"]["message"]
    )


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "question"),
        ([{"question": QUESTION}, {"question": QUESTION, "samples": 1}], "1.samples"),
        ({"question": QUESTION, "frob": 1}, "frob"),
    ],
)
def test_a_mistake_is_named_as_the_caller_wrote_it(api, body, where):
    """Not by pydantic's names for the members of a union, which stand in no document."""
    (detail,) = api.post("/v1/predict", json=body).json()["error"]["details"]
    assert detail["where"] == f"body.{where}"


def test_samples_count_against_the_limit(api):
    refused = api.post("/v1/predict", json=[{"question": QUESTION, "samples": 33}] * 2)
    assert refused.status_code == 422 and "at most 64 items" in refused.json()["error"]["message"]


def test_a_late_answer_is_504(student):
    def slow(asks):
        time.sleep(0.5)
        return student.generate(asks)

    late = client(student, write=slow, request_timeout_s=0.05).post(
        "/v1/predict", json={"question": QUESTION}
    )
    assert (
        late.status_code == 504
        and late.json()["error"]["type"] == "timeout_error"
        and late.headers["retry-after"] == "1"
    )


def test_a_broken_model_is_told_and_heals(student):
    """An engine that died inside a live replica answers for ever with errors; /healthz must not
    call that ok.
    """
    broken = True

    def write(asks):
        if broken:
            raise RuntimeError("the device is gone")
        return student.generate(asks)

    api = client(student, write=write)
    assert api.get("/healthz").status_code == 200
    failed = api.post("/v1/predict", json={"question": QUESTION})
    assert (
        failed.status_code == 500
        and "device" not in failed.text
        and failed.json()["error"]["type"] == "server_error"
    )
    assert api.get("/healthz").status_code == api.get("/health").status_code == 503
    broken = False
    assert api.post("/v1/predict", json={"question": QUESTION}).status_code == 200
    assert api.get("/healthz").json() == {"status": "ok"}


# --- the key ---


def test_a_key_is_wanted_everywhere_but_at_the_open_paths(student):
    locked = client(student, key="secret-1")
    right = {"Authorization": "Bearer secret-1"}
    paths = [
        ("GET", "/v1/task"),
        ("GET", "/v1/models"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/predict"),
        ("GET", "/x"),
    ]
    for method, path in paths:
        for wrong in (
            None,
            "secret-1",
            "Bearer",
            "Bearer secret-2",
            "Bearer secret-11",
            "Basic secret-1",
            "Bearer s\xe9cret",
        ):
            sent = {} if wrong is None else {"Authorization": wrong.encode("latin-1")}
            refused = locked.request(method, path, headers=sent)
            assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith(
                "Bearer"
            ), (path, wrong)
            assert "secret" not in refused.text
        assert locked.request(method, path, headers=right).status_code != 401
    assert locked.get("/health").status_code == 200 and locked.get("/docs").status_code == 401
    assert locked.get("/healthz").status_code == 200 and locked.get("/").status_code in (200, 404)
    assert (
        locked.get("//v1/task").status_code == 401
        and locked.get("/healthz/../v1/task").status_code == 401
    )


def test_an_unknown_caller_s_body_is_not_read(student):
    """A body that is only refused after it was read lets anybody fill the memory."""
    assert (
        client(student, key="k", max_body_bytes=100)
        .post("/v1/predict", content=b"x" * 1_000)
        .status_code
        == 401
    )
    assert (
        client(student, max_body_bytes=100).post("/v1/predict", content=b"x" * 1_000).status_code
        == 413
    )


# --- metrics, description ---


def test_metrics_count_requests_by_route_and_status(student):
    api = client(student)
    for path in ("/v1/models/student", "/v1/models/other", "/nowhere", "/nowhere/else"):
        api.get(path)
    api.post("/v1/predict", json={"question": QUESTION})
    text = api.get("/metrics").text
    assert 'qcrd_requests_total{replica="one",route="/v1/models/{model}",status="404"} 1.0' in text
    assert 'qcrd_requests_total{replica="one",route="other",status="404"} 2.0' in text, (
        "a label for every path is a leak"
    )
    assert 'qcrd_request_seconds_count{replica="one",route="/v1/predict"} 1.0' in text
    assert 'qcrd_requests_in_progress{replica="one"} 1.0' in text
    assert 'qcrd_tokens_total{kind="completion",replica="one"}' in text


def test_one_scrape_shows_all_replicas():
    from prometheus_client.parser import text_string_to_metric_families

    from qcrd_ray.serving.metrics import Metrics, exposition

    several = {}
    for name in ("a", "b"):
        metrics = Metrics()
        metrics.requests.labels("/", "200").inc(3)
        several[name] = metrics.families()
    families = {
        family.name: family
        for family in text_string_to_metric_families(exposition(several).decode())
    }
    assert {
        sample.labels["replica"]: sample.value for sample in families["qcrd_requests"].samples
    } == {"a": 3.0, "b": 3.0}


def test_the_description_is_true(student):
    """Its examples are taken by the routes that they stand at, and with a key it says so."""
    api = client(student)
    described = api.get("/openapi.json").json()
    assert {
        "/v1/predict",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/healthz",
        "/metrics",
    } <= set(described["paths"])
    body = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) == 4
    for example in body["examples"].values():
        assert api.post("/v1/predict", json=example["value"]).status_code == 200
    for path, schema in (
        ("/v1/completions", "CompletionRequest"),
        ("/v1/chat/completions", "ChatRequest"),
    ):
        for example in described["components"]["schemas"][schema]["examples"]:
            answered = api.post(path, json=example).json()
            shown = described["paths"][path]["post"]["responses"]["200"]["content"][
                "application/json"
            ]["example"]
            assert answered.keys() == shown.keys()
            told = {
                key for key, value in answered["choices"][0].items() if value is not None
            }  # the description leaves nulls out
            assert told == shown["choices"][0].keys()
    assert "securitySchemes" not in described["components"]
    locked = (
        client(student, key="k").get("/openapi.json", headers={"Authorization": "Bearer k"}).json()
    )
    assert locked["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
