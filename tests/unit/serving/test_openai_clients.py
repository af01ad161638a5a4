"""The OpenAI-compatible routes as OpenAI's own client meets them: a real socket, and no Ray."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import contextmanager

import openai
import pytest
import uvicorn
from endpoint_tiny import QUESTION, client, load

from qcrd_ray.inference.heads import HeadAnswer

WAIT_S = 20
WORDS = ["That", "is", "3", "+", "4", "=", "7", "apples."]
ASK = {"model": "student", "messages": [{"role": "user", "content": QUESTION}]}


@contextmanager
def served(app):
    """The URL of ``app`` on a real server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(WAIT_S)
            assert not thread.is_alive()


@contextmanager
def openai_client(app):
    with served(app) as url, openai.OpenAI(base_url=url, api_key="none", max_retries=0) as opened:
        yield opened


class Writer:
    """Writes the words of a text, one each time that it may."""

    def __init__(self) -> None:
        self.may = threading.Semaphore(0)
        self.ended = threading.Event()  # by its caller
        self.fails = False

    def __call__(self, requests):
        (request,) = requests
        samples = range(request.sampling.n)
        for count in range(1, len(WORDS) + 1):
            assert self.may.acquire(timeout=WAIT_S)
            if self.fails:
                raise RuntimeError("the device is gone")
            text = " ".join(WORDS[:count])
            if any([request.listener.hear(i, lambda text=text: text) for i in samples]):
                self.ended.set()
                break
        return [[HeadAnswer(text=text, tokens=count, finish_reason="stop") for _ in samples]]

    def write_until_ended(self) -> None:
        for _ in WORDS:
            self.may.release()
            if self.ended.wait(0.5):
                return
        raise AssertionError("it is written to its end")


@pytest.fixture(scope="module")
def student(exported_student):
    return load(exported_student)


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
def scripted(student, writer):
    """OpenAI's client of an endpoint whose texts ``writer`` writes."""
    with openai_client(client(student, write=writer).app) as opened:
        yield opened


@pytest.fixture(scope="module")
def real(student):
    with openai_client(client(student).app) as opened:
        yield opened


def pieces(chunks) -> list[tuple[int, str]]:
    return [
        (choice.index, choice.delta.content)
        for chunk in chunks
        for choice in chunk.choices
        if choice.delta.content
    ]


def test_a_piece_is_sent_while_the_next_one_is_not_written(scripted, writer):
    """Bug guarded: a stream that began when the text was whole."""
    writer.may.release()  # or no head of an answer would come
    with scripted.chat.completions.create(**ASK, stream=True) as stream:
        heard = []
        for chunk in stream:
            if text := chunk.choices[0].delta.content:
                heard.append(text)
                writer.may.release()
    assert heard == [WORDS[0], *(f" {word}" for word in WORDS[1:])]


def test_choices_interleave(scripted, writer):
    """Bug guarded: n choices that were sent one after the other."""
    writer.may.release(len(WORDS))
    sent = pieces(scripted.chat.completions.create(**ASK, n=3, temperature=1.0, stream=True))
    assert [index for index, _ in sent] == [0, 1, 2] * len(WORDS)


def test_nothing_is_written_behind_a_stop(scripted, writer):
    """Bug guarded: usage counted the text behind the stop, which nobody got. The rule is one for a
    stream and for a whole answer: the text ends where the stop begins, and so does the writing.
    """
    writer.may.release(2 * len(WORDS))
    whole = scripted.chat.completions.create(**ASK, stop=["4 ="])
    (choice,) = whole.choices
    assert (choice.message.content, choice.finish_reason) == ("That is 3 + ", "stop")
    assert whole.usage.completion_tokens == WORDS.index("=") + 1
    writer.may.release(2 * len(WORDS))
    options = {"include_usage": True}
    chunks = list(
        scripted.chat.completions.create(**ASK, stop="4 =", stream=True, stream_options=options)
    )
    assert "".join(text for _, text in pieces(chunks)) == choice.message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:-1]] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_caller_who_hangs_up_ends_the_writing(scripted, writer, caplog):
    """Bug guarded: a text was written to its end for nobody, in a slot that others waited for, and
    the hang-up was logged with a traceback.
    """
    caplog.set_level(logging.INFO)
    writer.may.release()
    answer = scripted.chat.completions.create(**ASK, stream=True)
    assert pieces([next(answer), next(answer)]) == [(0, WORDS[0])]
    answer.close()
    writer.write_until_ended()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("stream", [True, False])
def test_what_takes_too_long_is_not_written_on(student, writer, stream):
    """Bug guarded: after 504 the engine went on with what nobody would get."""
    app = client(student, write=writer, request_timeout_s=0.5).app
    with openai_client(app) as opened:
        with pytest.raises(openai.InternalServerError) as late:
            opened.chat.completions.create(**ASK, stream=stream)
        assert late.value.status_code == 504
        writer.write_until_ended()


def test_an_error_before_the_first_token_has_its_status(scripted, writer):
    writer.fails = True
    writer.may.release()
    with pytest.raises(openai.InternalServerError) as refused:
        scripted.chat.completions.create(**ASK, stream=True)
    assert refused.value.status_code == 500 and "device" not in refused.value.message


def test_an_error_behind_the_first_token_reaches_the_caller(scripted, writer):
    """Bug guarded: a stream that breaks off and looks finished."""
    writer.may.release()
    with pytest.raises(openai.APIError, match="failed to go on"):
        for chunk in scripted.chat.completions.create(**ASK, stream=True):
            if chunk.choices[0].delta.content:
                writer.fails = True
                writer.may.release()


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_stream_is_the_answer_that_is_no_stream(real, temperature):
    """Of the real engine, for both kinds of request, with several questions and choices."""
    ask = {"n": 2, "temperature": temperature, "seed": 1, "model": "student"}
    prompts = [QUESTION, "How many?"]
    whole = real.completions.create(prompt=prompts, **ask)
    options = {"include_usage": True}
    chunks = list(
        real.completions.create(prompt=prompts, **ask, stream=True, stream_options=options)
    )
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        mine = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(each.text for each in mine) == choice.text
        assert mine[-1].finish_reason == choice.finish_reason
        assert len(mine) > 3
    assert len({index for chunk in chunks[:8] for index in [chunk.choices[0].index]}) > 1


def test_a_length_is_told_from_an_end(real):
    """`finish_reason` and `usage` as the engine has them."""
    cut = real.chat.completions.create(**ASK, max_completion_tokens=3)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)
    streamed = list(real.chat.completions.create(**ASK, max_tokens=3, stream=True))
    assert streamed[-1].choices[0].finish_reason == "length"


def test_instructions_are_not_read(real):
    """Bug guarded: the clients that send a system message by themselves got 400."""
    alone = real.chat.completions.create(**ASK)
    told = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Answer in French."}]},
        *ASK["messages"],
        {"role": "system", "content": "Now!"},
    ]
    instructed = real.chat.completions.create(model="student", messages=told)
    assert instructed.choices == alone.choices and instructed.usage == alone.usage


def test_fields_that_change_no_answer_are_taken(real):
    """Bug guarded: 400 for what common clients send by themselves."""
    alone = real.chat.completions.create(**ASK)
    taken = real.chat.completions.create(
        **ASK,
        metadata={"team": "a"},
        modalities=["text"],
        parallel_tool_calls=True,
        prediction={"type": "content", "content": "7"},
        prompt_cache_key="k",
        reasoning_effort="high",
        safety_identifier="s",
        service_tier="auto",
        store=False,
        user="me",
        verbosity="low",
        tool_choice="auto",
    )
    assert taken.choices == alone.choices
    streamed = real.chat.completions.create(
        **ASK, stream=True, stream_options={"include_obfuscation": False}
    )
    assert "".join(text for _, text in pieces(streamed)) == alone.choices[0].message.content


@pytest.mark.parametrize(
    "field",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"logprobs": True},
        {"modalities": ["text", "audio"]},
        {"web_search_options": {}},
        {"functions": [{"name": "f"}]},
        {"max_tokens": 100_000},
        {"max_completion_tokens": 100_000},
        {"messages": [*ASK["messages"], {"role": "tool", "content": "7", "tool_call_id": "1"}]},
        {"messages": [{"role": "system", "content": "Hello."}]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_fields_that_would_change_the_answer_are_refused_by_name(real, field):
    """Bug guarded: `max_tokens` beyond what the student writes was clamped without a word."""
    with pytest.raises(openai.BadRequestError) as refused:
        real.chat.completions.create(**{**ASK, **field})
    assert refused.value.param == next(iter(field))
