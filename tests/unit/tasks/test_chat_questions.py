"""Questions that are chats: what of the messages a question takes, and which chats are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qcrd_ray.recipe import Split, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import read_questions

USER = {"role": "user", "content": "What is 1 + 1?"}
SYSTEM = {"role": "system", "content": "Count in apples."}
ASSISTANT = {"role": "assistant", "content": "1 + 1 = 3."}


def read(file: Path, *, system: str | None = None):
    return read_questions(
        Split(path=str(file)),
        task=build_task(TaskRecipe(kind="arithmetic", system=system)),
        columns={"question": "messages"},
        kind="arithmetic",
        max_chars=1_000,
    )


@pytest.fixture
def write(tmp_path):
    def _write(*chats, name="chats.jsonl") -> Path:
        rows = [{"messages": chat, "answer": "2"} for chat in chats]
        file = tmp_path / name
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), file)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return _write


@pytest.mark.parametrize("name", ["chats.jsonl", "chats.parquet"])
def test_the_user_s_turn_is_the_question_and_the_reply_is_not_read(write, name):
    """Guards a reply, often the answer itself, that would become a part of the question."""
    (question,), rejected = read(write([USER, ASSISTANT], name=name))
    assert not rejected
    assert (question.question, question.answer) == ("What is 1 + 1?", "2")


@pytest.mark.parametrize(
    ("system", "question"),
    [
        (None, "Count in apples.\n\nWhat is 1 + 1?"),
        ("Count in apples. ", "What is 1 + 1?"),  # the teacher gets it from the recipe
    ],
)
def test_a_system_turn_is_never_lost_and_never_asked_twice(write, system, question):
    (read_back,), _ = read(write([SYSTEM, USER]), system=system)
    assert read_back.question == question


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (
            [USER, ASSISTANT, USER],
            r"earlier turns \(2\) .* memory.*\(data\.columns\.question\)",
        ),
        ([SYSTEM, ASSISTANT], "no turn is the user's"),
        ([SYSTEM | {"content": "Count in pears."}, USER], "'Count in pears.' is another than task"),
        ([SYSTEM, USER | {"content": " "}], "the user's turn is empty"),
        ([{"from": "human", "value": "What is 1 + 1?"}], "item 1 must have a role"),
        ([SYSTEM, USER | {"content": [{"type": "image"}]}], "item 2 must have a role"),
        (["What is 1 + 1?"], "messages must be a text, not list"),
    ],
)
def test_a_chat_that_is_no_question_is_rejected_with_its_reason(write, chat, reason):
    """Guards a follow-up question without what it follows, and a lost system message."""
    (kept,), (bad,) = read(write([USER], chat), system=SYSTEM["content"])
    assert kept.question == USER["content"]
    assert bad.row == 2
    assert re.search(reason, bad.reason), bad.reason
