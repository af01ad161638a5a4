"""The endpoint as a client meets it: real Ray Serve, real HTTP, a student folder with a
discriminator and a judge.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from endpoint_tiny import with_judge

from qcrd_ray import serving
from qcrd_ray.errors import UserError
from qcrd_ray.inference import load_engine
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving import endpoint

pytestmark = pytest.mark.integration

MAX_BODY_BYTES = ServingRecipe().max_body_bytes
QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"


@pytest.fixture(scope="module")
def url(local_ray, exported_student, tmp_path_factory):
    student = with_judge(exported_student, tmp_path_factory.mktemp("judged") / "student")
    url = serving.start(student, ServingRecipe(port=0, max_batch_size=8))
    yield url
    serving.stop()


def call(url, body=None, *, path="/v1/predict", headers=None):
    """(status, parsed body). ``body``: bytes as they are, anything else as JSON; None: a GET."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        url + path, data, {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_it_is_ready_when_start_returns(url):
    assert call(url, path="/healthz") == (200, {"status": "ok"})
    assert url.startswith("http://127.0.0.1:")


def test_label_rationale_and_quality(url, exported_student):
    """The endpoint says what the exported folder says: same prefixes, same greedy texts."""
    status, answer = call(url, {"question": QUESTION, "rationale": True, "quality": True})
    assert status == 200
    engine = load_engine(exported_student)
    (label,), (rationale,) = engine.generate(
        [f"predict: {QUESTION}", f"explain: {QUESTION}"], max_tokens=12
    )
    assert answer["text"] == label.text
    assert answer["rationale"] and answer["rationale"] in rationale.text
    assert 0.0 <= answer["quality"] <= 1.0


def test_what_is_not_asked_for_is_not_written(url):
    status, answer = call(url, {"question": QUESTION})
    assert status == 200
    assert answer["rationale"] is None and answer["quality"] is None


def test_a_list_is_answered_in_its_order(url):
    questions = [f"{QUESTION} {'And then? ' * i}" for i in range(20)]
    alone = [
        call(url, {"question": question, "rationale": i % 2 == 0})[1]
        for i, question in enumerate(questions)
    ]
    together = call(
        url,
        [{"question": question, "rationale": i % 2 == 0} for i, question in enumerate(questions)],
    )
    assert together == (200, alone)


def test_many_clients_at_once_get_their_own_answers(url):
    """Requests that arrive together share a batch; none may get its neighbour's answer."""
    questions = [f"{QUESTION} {'Really? ' * i}" for i in range(24)]
    alone = [call(url, {"question": question, "rationale": True}) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        assert (
            list(
                pool.map(
                    lambda question: call(url, {"question": question, "rationale": True}), questions
                )
            )
            == alone
        )


def test_votes_that_share_a_batch_are_each_their_own(url):
    """Samples and scores of several callers come out of one batch. Weights of another question's
    samples would name another winner, and look as good.
    """
    bodies = [{"question": f"{QUESTION} {'Really? ' * i}", "samples": 4} for i in range(12)]
    alone = [call(url, body) for body in bodies]
    assert {status for status, _ in alone} == {200}
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda body: call(url, body), bodies))
    for (_, one), (status, other) in zip(alone, together, strict=True):
        assert status == 200 and other["vote_kind"] == "judged"
        assert [each["text"] for each in other["samples"]] == [
            each["text"] for each in one["samples"]
        ]
        for name in ("score", "weight"):
            assert [each[name] for each in other["samples"]] == pytest.approx(
                [each[name] for each in one["samples"]], abs=1e-4
            )
    judge = call(url, path="/v1/task")[1]["judge"]
    assert (judge["samples"], judge["temperature"]) == (4, 1.5)
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        assert 'work="judge"' in response.read().decode()


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"{", 422, "JSON"),
        (b"\xff\xfe", 422, "JSON"),
        (b'{"question": "\xff"}', 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (b"", 422, "required"),
        ("a text", 422, "valid dictionary"),
        ({}, 422, "required"),
        ({"question": ""}, 422, "at least 1 character"),
        ({"question": "   "}, 422, "the question is empty"),
        ({"question": 7}, 422, "valid string"),
        ({"question": None}, 422, "valid string"),
        ({"question": QUESTION, "rationalle": True}, 422, "not permitted"),
        ({"question": QUESTION, "rationale": "perhaps"}, 422, "boolean"),
        ({"question": QUESTION, "choices": "a"}, 422, "valid list"),
        (b'{"question": "half a pair \\ud800"}', 400, "unicode"),
        ({"question": "x" * 30_000}, 422, "at most 20,000"),
        ({"question": QUESTION, "samples": 4, "vote": "loud"}, 422, "'plain' or 'judged'"),
        ({"question": QUESTION, "vote": "judged"}, 422, "say how many by `samples`"),
        ([], 422, "at least 1 item"),
        (
            [{"question": QUESTION}] * 65,
            422,
            "at most 64 items, each sample of a question counted; this asks for 65",
        ),
        (
            [{"question": QUESTION}, {"question": " "}],
            422,
            "question 1 of the list: the question is empty",
        ),
        ({"question": "x" * (MAX_BODY_BYTES + 1)}, 413, "over 1,048,576 bytes"),
    ],
)
def test_wrong_input_is_told_what_was_expected(url, body, status, expected):
    """Never a 500, and never a traceback in the answer."""
    got, answer = call(url, body)
    assert got == status, answer
    assert expected.lower() in json.dumps(answer).lower()
    assert set(answer) == {"error"} and "Traceback" not in json.dumps(answer)


def test_a_body_that_does_not_say_its_length_is_limited_too(url):
    """Chunked bodies carry no Content-Length: the limit must count what arrives."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type:"
            b" application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        for _ in range(MAX_BODY_BYTES // 0x10000 + 1):
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


def test_other_paths_and_methods(url):
    assert call(url, path="/nothing")[0] == 404
    assert call(url)[0] == 405


def test_the_example_command_works(url):
    """What `qcrd serve` prints is run as it stands."""
    import subprocess

    done = subprocess.run(
        serving.example(url, ServingRecipe()) + " --silent",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert {"label", "rationale"} <= json.loads(done.stdout).keys()


def test_a_second_address_is_refused(url, exported_student):
    """Serve ignores a second address without a word: the URL that start returned would answer
    nothing.
    """
    with pytest.raises(UserError, match="already listens"):
        serving.start(exported_student, ServingRecipe(port=1))


def test_a_public_address_without_a_key_does_not_start(local_ray, exported_student):
    with pytest.raises(UserError, match=r"serve\.host: other machines could reach"):
        serving.start(exported_student, ServingRecipe(host="0.0.0.0"))


def test_the_address_is_checked_before_a_run():
    """A taken port would otherwise be met in the last stage, hours later."""
    serving.check(ServingRecipe(port=0))
    with pytest.raises(UserError, match=r"serve\.host"):
        serving.check(ServingRecipe(host="0.0.0.0"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"serve\.port: .* is not free"):
            endpoint._check_free("127.0.0.1", other.getsockname()[1])


# ---------------------------------------------------------------------------------------------
# OpenAI's own client, curl, metrics


@pytest.fixture(scope="module")
def openai_client(url):
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none is asked for", max_retries=0) as client:
        yield client


def test_the_openai_client_works_unchanged(openai_client, url):
    chat = openai_client.chat.completions.create(
        model="student", messages=[{"role": "user", "content": QUESTION}]
    )
    predicted = call(url, {"question": QUESTION, "rationale": True})[1]
    assert predicted["rationale"] in chat.choices[0].message.content
    assert chat.usage.total_tokens == chat.usage.prompt_tokens + chat.usage.completion_tokens
    label = openai_client.completions.create(model="student:label", prompt=[QUESTION, QUESTION])
    assert [choice.text for choice in label.choices] == [predicted["text"]] * 2
    assert [model.id for model in openai_client.models.list()] == ["student", "student:label"]


def test_the_openai_client_streams(openai_client):
    asked = {
        "model": "student",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 1.0,
        "seed": 7,
    }
    whole = openai_client.chat.completions.create(**asked)
    chunks = list(
        openai_client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_the_openai_client_tells_errors_apart(openai_client):
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        openai_client.completions.create(model="student", prompt=QUESTION, temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError, match="there is student"):
        openai_client.completions.create(model="gpt-4", prompt=QUESTION)


def test_requests_that_arrive_together_are_written_together(url):
    """Without batching, a busy endpoint answers one by one, and nothing but the batch sizes
    tells.
    """
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: call(url, {"question": QUESTION, "samples": 8, "seed": number}),
                range(24),
            )
        )
    with urllib.request.urlopen(url + "/metrics", timeout=30) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        text = response.read().decode()
    numbers = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if "qcrd_batch_size_" in line and 'work="write"' in line
    }
    assert numbers["qcrd_batch_size_sum"] > 1.5 * numbers["qcrd_batch_size_count"]
    assert 'qcrd_requests_total{replica="' in text
