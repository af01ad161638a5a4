"""Asking: retries, refusals and hangs of a teacher, and that every question comes out as one row
whatever happens.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, RationaleSet
from qcrd_ray.rationales import blocks
from qcrd_ray.rationales.asking import Counts, RationaleGenerator
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.recipe import Recipe
from qcrd_ray.teacher import Stopped, TeacherAnswer, TeacherError, TeacherRefusal, TeacherRequest


class Scripted:
    """A teacher whose every request is decided by a function of (attempt at these questions, their
    asks).
    """

    def __init__(self, script: Callable):
        self._script = script
        self.requests: Counter[tuple[str, ...]] = Counter()
        self.now = self.most = 0

    def prompt(self, task, question) -> str:
        return task.teacher_prompt(question)

    async def complete(self, asks: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        ids = tuple(ask.question.id for ask in asks)
        self.requests[ids] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.001)
            return await self._script(self.requests[ids], asks)
        finally:
            self.now -= 1


def answers(asks: Sequence[TeacherRequest], *, samples: int = 3) -> list[TeacherAnswer]:
    text = "First there were 3, then 5 more came. So the answer is 8."
    return [
        TeacherAnswer((Completion(text=text, tokens=12),) * samples, prompt_tokens=7) for _ in asks
    ]


def recipe(**generation) -> Recipe:
    split = {"generate": 1}
    return Recipe(
        name="t",
        run="/nowhere",
        task={"kind": "word_problems"},
        data={"train": split, "validation": split, "test": split},
        teacher={"source": "recording", "path": "none.jsonl"},
        student={"scratch": {}},
        sampling={"k": 3},
        generation={"backoff_s": 0.001, "attempts": 3, **generation},
    )


def ask(script: Callable, ids: str = "a", **generation) -> tuple[list[dict], Scripted, Counter]:
    """All rows that come out for the questions ``ids``, the teacher, and what was told to the
    driver.
    """
    teacher, told = Scripted(script), Counter()
    rows = [
        {"id": f"h-{id}", "question_id": id, "question": "3 + 5?", "choices": [], "gold": "8"}
        for id in ids
    ]

    async def run() -> list[RationaleSet]:
        generate = RationaleGenerator(recipe(**generation), teacher)
        sets = await generate(pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA))
        told.update(sum(generate.take_counts().values(), Counter()))
        return sets

    sets = [each.row() for each in asyncio.run(run())]
    table = pa.Table.from_pylist(sets, schema=RATIONALE_SET_SCHEMA)
    assert told["sent"] == told["back"] == teacher.requests.total()
    assert [(row["id"], row["question_id"]) for row in table.to_pylist()] == [
        (row["id"], row["question_id"]) for row in rows
    ]
    assert told["rows"] == len(ids)
    return table.to_pylist(), teacher, told


def test_an_answer_is_parsed_voted_and_counted():
    async def script(attempt, asks):
        return answers(asks)

    (row,), _, told = ask(script)
    assert (row["outcome"], row["vote"], row["vote_share"], row["attempts"], row["gold"]) == (
        "accepted",
        "8",
        1.0,
        1,
        "8",
    )
    assert [completion["role"] for completion in row["completions"]] == ["positive"] * 3
    assert (told["tokens_in"], told["tokens_out"], told["retries"], told["accepted"]) == (
        7,
        36,
        0,
        1,
    )


def test_thinking_is_kept_apart_and_a_text_cut_off_inside_it_abstains():
    """Bug guarded: a number that the teacher only tried out in its thinking was voted for as its
    answer.
    """
    texts = [
        "<think>9? No.</think>5 more than 3. So the answer is 8.",
        "9? No.</think>So the answer is 8.",
        "<think>So the answer is 9.",
    ]

    async def script(attempt, asks):
        return [TeacherAnswer(tuple(Completion(text=text) for text in texts)) for _ in asks]

    (row,), _, _ = ask(script)
    assert (row["outcome"], row["vote"], row["vote_share"]) == ("accepted", "8", 1.0)
    told = [
        (completion["thinking"], completion["rationale"], completion["role"])
        for completion in row["completions"]
    ]
    assert told == [
        ("9? No.", "5 more than 3.", "positive"),
        ("9? No.", "", "positive"),
        ("So the answer is 9.", "", "abstained"),
    ]
    assert row["completions"][2]["reason"] == "cut off inside its thinking"


def test_a_teacher_that_stopped_is_not_asked_again_in_this_run():
    async def script(attempt, asks):
        raise Stopped("nothing left to spend")

    rows, teacher, told = ask(script, "ab")
    assert [(row["outcome"], row["reason"], row["attempts"]) for row in rows] == [
        ("failed", "nothing left to spend", 0)
    ] * 2
    assert (teacher.requests.total(), told["retries"]) == (2, 0)


def test_a_failed_request_is_tried_again():
    async def script(attempt, asks):
        if attempt < 3:
            raise TeacherError("the replica died")
        return answers(asks)

    (row,), _, told = ask(script)
    assert (row["outcome"], row["attempts"], told["retries"]) == ("accepted", 3, 2)


def test_the_attempts_are_bounded_and_the_last_reason_is_kept():
    async def script(attempt, asks):
        raise TeacherError(f"the replica died, time {attempt}")

    (row,), teacher, _ = ask(script)
    assert (row["outcome"], row["reason"], row["attempts"]) == (
        "failed",
        "the replica died, time 3",
        3,
    )
    assert teacher.requests.total() == 3


def test_a_hanging_request_is_given_up():
    async def script(attempt, asks):
        await asyncio.sleep(60)

    start = time.monotonic()
    (row,), _, _ = ask(script, request_timeout_s=0.05)
    assert (row["outcome"], row["attempts"]) == ("failed", 3)
    assert "generation.request_timeout_s" in row["reason"]
    assert time.monotonic() - start < 5


def test_a_refusal_is_not_tried_again():
    async def script(attempt, asks):
        raise TeacherRefusal("the prompt has 9,000 tokens and the model takes 4,096")

    (row,), teacher, _ = ask(script)
    assert (row["outcome"], row["attempts"], teacher.requests.total()) == ("rejected_input", 1, 1)
    assert "4,096" in row["reason"]


def test_one_question_does_not_spoil_the_others_of_its_request():
    async def script(attempt, asks):
        if any(ask.question.id == "b" for ask in asks):
            raise TeacherRefusal("too long")
        return answers(asks)

    rows, _, _ = ask(script, "abc", questions_per_request=3)
    assert [row["outcome"] for row in rows] == ["accepted", "rejected_input", "accepted"]


def test_fewer_than_k_completions_fail():
    async def script(attempt, asks):
        return answers(asks, samples=2)

    (row,), _, _ = ask(script)
    assert (row["outcome"], row["reason"]) == ("failed", "2 of 3 completions came back")


def test_faults_of_some_requests_leave_the_others_alone():
    async def script(attempt, asks):
        if asks[0].question.id in "aceg":
            raise TeacherError("no")
        return answers(asks)

    rows, _, told = ask(script, "abcdefgh")
    assert [row["outcome"] for row in rows] == ["failed", "accepted"] * 4
    assert told["failed"] == told["accepted"] == 4


@pytest.mark.parametrize("limit", [1, 3])
def test_requests_in_flight_are_bounded(limit):
    async def script(attempt, asks):
        return answers(asks)

    _, teacher, _ = ask(script, "abcdefgh", requests_in_flight=limit)
    assert teacher.most == limit


@pytest.mark.parametrize(("size", "requests"), [(1, 7), (3, 3), (7, 1), (50, 1)])
def test_questions_share_requests_in_order(size, requests):
    async def script(attempt, asks):
        return answers(asks)

    rows, teacher, _ = ask(script, "abcdefg", questions_per_request=size)
    assert teacher.requests.total() == requests
    assert all(row["outcome"] == "accepted" for row in rows)


def test_a_bug_is_not_taken_for_a_fault():
    """Only a teacher's own errors are retried and counted as failed; a programming error must be
    seen.
    """

    async def script(attempt, asks):
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        ask(script)


def test_a_stop_waits_for_what_is_in_flight_and_asks_nothing_more(monkeypatch):
    """Bug guarded: Ctrl-C and SIGTERM lost the requests in flight, which are paid for."""
    monkeypatch.setattr(blocks, "SEND_EVERY_S", 0.01)
    kept: list[str] = []

    async def script(attempt, asks):
        await asyncio.sleep(0.2)
        return answers(asks)

    async def run() -> Counter[str]:
        generate = RationaleGenerator(recipe(requests_in_flight=3), teacher)
        rows = [
            {"id": id, "question_id": id, "question": "3 + 5?", "choices": [], "gold": "8"}
            for id in "abcdefgh"
        ]
        asking = asyncio.ensure_future(
            generate(
                pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA),
                lambda sets: kept.extend(each.id for each in sets),
            )
        )
        await asyncio.sleep(0.05)
        generate.draining = True
        counts = Counter[str]()

        def read() -> Counts:
            counts.update(generate.take_counts().get("", {}))
            return {"": counts}

        await asyncio.to_thread(blocks.drain, read)
        assert not asking.done()
        asking.cancel()
        return counts

    teacher = Scripted(script)
    counts = asyncio.run(run())
    assert kept == ["a", "b", "c"] and teacher.requests.total() == 3
    assert counts["sent"] == counts["back"] == 3
