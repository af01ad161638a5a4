"""What strangers write is read, or refused in words: no other exception, and never slowly.

QCRD_FUZZ sets how many cases each test draws (`make fuzz`: 10,000).
"""

from __future__ import annotations

import json
import os
import time

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcrd_ray.data.json_lines import read_line
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks import KINDS, build_task
from qcrd_ray.tasks.thinking import split_thinking
from qcrd_ray.teacher.base import TeacherError
from qcrd_ray.teacher.openai_protocol import read_models, read_samples

CASES = int(os.environ.get("QCRD_FUZZ", "100"))
SLOW_S = 2.0
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# Pieces that the readers look for, so that what is drawn gets past their first line.
PIECES = [
    *("So the answer is ", "The answer is", "Answer:", "#### ", "\\boxed{", "}", "\\frac{1}{2}"),
    *("(A)", "B.", "**C**", "[D]", "Yes", "no", "entailment", "it is not possible to tell"),
    *("12", "1,234", "-3", "1/0", "1e309", "½", "$", "%", "=", " + ", " * ", "<<3*4=12>>", "n1"),
    *("<think>", "</think>", "\nQ: ", "\nQuestion 2:", "\n", " ", ".", "\u2028", "\0", "é", "٣"),
    *("9" * 60, "(" * 40, "a " * 200, "is the answer " * 50, "* " * 100),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=30).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
QUESTIONS = {
    "multiple_choice": Question(id="1", question="Which?", choices=("red", "the blue one", "no")),
    "nli": Question(id="1", question="A man sleeps.\nHypothesis: he is awake."),
    "short_text": Question(id="1", question='Take the last letters of "Ann Lee".'),
}
NUMBERS = Question(id="1", question="Ann has 3 apples and 12 pears. How many are there?")


@fuzz
@given(kind=st.sampled_from(sorted(KINDS)), text=texts)
def test_any_completion_is_read(kind, text):
    """Guards a completion that ends the job, takes seconds, or whose answer is no answer."""
    task, question = build_task(TaskRecipe(kind=kind)), QUESTIONS.get(kind, NUMBERS)
    began = time.monotonic()
    parsed = task.parse(split_thinking(text, ("<think>", "</think>")).text, question)
    assert time.monotonic() - began < SLOW_S
    assert (parsed.answer is None) == bool(parsed.reason)
    if parsed.answer is not None:
        assert task.canonical(parsed.answer, question) == parsed.answer


def _reply(message: dict, usage: object) -> dict:
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


replies = st.builds(
    _reply,
    st.dictionaries(st.sampled_from(["content", "reasoning", "role"]), json_values),
    json_values
    | st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens"]), json_values),
)


@fuzz
@given(text=(replies | json_values).map(json.dumps) | texts)
def test_any_reply_of_an_endpoint_is_read_or_refused(text):
    """Guards one odd reply that ends the job, after which every rerun pays again."""
    for read in (read_samples, read_models):
        try:
            read(text)
        except TeacherError as error:
            assert str(error)


@fuzz
@given(raw=st.binary(max_size=60) | (json_values.map(json.dumps) | texts).map(str.encode))
def test_any_line_of_a_data_file_is_read_or_has_a_reason(raw):
    line = read_line(1, raw)
    assert (line.data is None) == bool(line.reason)


KEYS = [
    "name",
    "run",
    "task",
    "kind",
    "data",
    "train",
    "teacher",
    "source",
    "k",
    "sampling",
    "extends",
]
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(KEYS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers(), inner, max_size=5)
    ),
    max_leaves=20,
)


@fuzz
@given(text=trees.map(yaml.safe_dump) | texts)
def test_any_recipe_is_read_or_refused(tmp_path, text):
    """Guards a traceback where the line of the mistake should be named."""
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        load_recipe(file)
    except UserError as error:
        assert "recipe.yaml" in str(error)
