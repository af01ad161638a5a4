"""Whatever an endpoint says, reading it gives samples that can be stored, or a TeacherError."""

from __future__ import annotations

import json
import math

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcrd_ray.data.records import COMPLETION_TYPE
from qcrd_ray.recipe import OpenAITeacher
from qcrd_ray.teacher import Stopped, TeacherError, TeacherRefusal
from qcrd_ray.teacher.openai_protocol import raise_error, read_models, read_samples, retry_after
from qcrd_ray.teacher.reply_body import MAX_REPLY_BYTES, ReplyBody

TEACHER = OpenAITeacher(source="openai", model="m")
# with halves of surrogate pairs, which hypothesis leaves out by itself
texts = st.text(st.characters(exclude_categories=()), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def fields(**known) -> st.SearchStrategy[dict]:
    """An object with some of the protocol's fields, each as the protocol has it or anything."""
    return st.fixed_dictionaries(
        {}, optional={name: right | values for name, right in known.items()}
    )


messages = fields(content=texts, refusal=texts, reasoning_content=texts, reasoning=texts)
choices = fields(message=messages, text=texts, finish_reason=texts)
usages = fields(prompt_tokens=st.integers(), completion_tokens=st.integers())
errors = fields(message=texts, detail=texts, code=texts, param=st.just("model") | texts)
replies = fields(choices=st.lists(choices | values, max_size=4), usage=usages, error=errors)
many = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(replies | values)
def test_any_json_is_read_or_a_teacher_error(body):
    """Bug guarded: AttributeError, TypeError and RecursionError, each of which ended the job."""
    try:
        samples = read_samples(json.dumps(body))
    except TeacherError as error:
        str(error).encode()  # it becomes a row's reason
        return
    stored = [
        {name: getattr(each, name) for name in ("text", "thinking", "finish_reason", "tokens")}
        for each in samples.completions
    ]
    assert pa.array(stored, COMPLETION_TYPE).to_pylist()[0]["text"] == stored[0]["text"]
    assert sum(each.tokens for each in samples.completions) == (samples.completion_tokens or 0)
    assert min(samples.prompt_tokens or 0, samples.completion_tokens or 0) >= 0


@many
@given(texts)
def test_any_text_is_read_or_a_teacher_error(body):
    try:
        read_samples(body)
    except TeacherError as error:
        str(error).encode()


@many
@given(
    st.integers(100, 599),
    st.fixed_dictionaries({}, optional={"retry-after": texts}),
    replies.map(json.dumps) | values.map(json.dumps) | texts,
)
def test_any_error_body_is_one_of_the_teachers_errors(status, headers, body):
    try:
        raise_error(status, headers, body, TEACHER)
    except (TeacherError, TeacherRefusal, Stopped) as error:
        str(error).encode()
    else:
        raise AssertionError("a status that is no error")


dates = st.from_regex(
    r"\A(Mon, )?\d{1,9} (Jan|Feb) \d{1,12} \d{1,9}:\d{1,9}:\d{1,9} ([+-]\d{1,9}|GMT)\Z"
)


@many
@given(texts | dates)
def test_any_retry_after_is_a_number_of_seconds(value):
    seconds = retry_after({"retry-after": value})
    assert seconds >= 0 and not math.isnan(seconds)


@many
@given(values.map(json.dumps) | fields(data=st.lists(fields(id=texts))).map(json.dumps) | texts)
def test_any_list_of_models_is_read(body):
    assert all(isinstance(name, str) for name in read_models(body))


@many
@given(st.sampled_from(["", "gzip", "deflate", "x-gzip", "identity"]), st.lists(st.binary()))
def test_any_bytes_are_a_text_or_a_teacher_error(encoding, pieces):
    try:
        body = ReplyBody({"content-encoding": encoding})
        for piece in pieces:
            body.add(piece)
        body.text().encode()
    except TeacherError:
        assert encoding not in ("", "identity")


def test_a_reply_is_never_held_beyond_the_limit():
    body = ReplyBody({})
    piece = b" " * (1 << 20)
    for _ in range(MAX_REPLY_BYTES >> 20):
        body.add(piece)
    try:
        body.add(b" ")
    except TeacherError as error:
        assert "larger than 16 MiB" in str(error)
    else:
        raise AssertionError("taken")
