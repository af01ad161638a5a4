"""An outage: what waits for it, for how long, and what it costs."""

from __future__ import annotations

import asyncio
import time

import pytest
from test_asking import answers, ask

from qcrd_ray.rationales import breaker
from qcrd_ray.rationales.breaker import TRIPS_AT, Breaker, GivenUp
from qcrd_ray.teacher import TeacherAway, TeacherError

MANY = [str(number) for number in range(30)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(breaker, "_LOOK_EVERY_S", 0.005)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tripped(clock: Clock, **settings) -> Breaker:
    breaker = Breaker(patience_s=60.0, backoff_s=1.0, clock=clock, **settings)
    for _ in range(TRIPS_AT):
        breaker.failed("no")
    assert breaker.away
    return breaker


def admitted(breaker: Breaker) -> bool:
    async def run() -> bool:
        try:
            await asyncio.wait_for(breaker.admit(), 0.03)
        except TimeoutError:
            return False
        return True

    return asyncio.run(run())


def test_an_outage_fails_no_row():
    """Bug guarded: an outage of more than four tries (3.5 s) failed every row in flight, and
    training began on the rest.
    """
    start, asked = time.monotonic(), 0

    async def script(attempt, asks):
        nonlocal asked
        asked += 1
        if 0.1 < time.monotonic() - start < 0.6:
            raise TeacherAway("HTTP 503: back soon")
        await asyncio.sleep(0.03)
        return answers(asks)

    rows, _, told = ask(script, MANY, attempts=2, requests_in_flight=4)
    assert {row["outcome"] for row in rows} == {"accepted"}
    assert told["retries"] > 0 and asked < len(MANY) + 25  # few tries meanwhile


def test_one_after_another_tries_while_the_teacher_is_away():
    clock = Clock()
    away = tripped(clock)
    assert not admitted(away)
    clock.now = 1.0
    assert admitted(away) and not admitted(away)  # one only
    away.failed("no")
    assert not admitted(away)
    clock.now = 3.0  # waits double
    assert admitted(away)
    away.answered()
    assert admitted(away) and admitted(away)


def test_retry_after_holds_everybody():
    clock = Clock()
    away = Breaker(patience_s=60.0, backoff_s=1.0, clock=clock)
    for _ in range(TRIPS_AT):
        away.failed("HTTP 429", retry_after_s=30.0)
    clock.now = 29.0
    assert not admitted(away)
    clock.now = 30.0
    assert admitted(away)


def test_an_outage_that_stays_ends_the_asking_in_time():
    """What was never asked says so, so that the run stops; the patience is kept."""
    clock = Clock()
    away = tripped(clock)
    clock.now = 61.0
    with pytest.raises(GivenUp, match=r"nothing for 1 minutes \(generation.retry_minutes\): no"):
        asyncio.run(away.admit())

    async def script(attempt, asks):
        raise TeacherAway("HTTP 503")

    settings = {"retry_minutes": 0.01, "backoff_s": 0.05, "requests_in_flight": 6, "attempts": 9}
    rows, _, _ = ask(script, MANY, **settings)
    assert {row["outcome"] for row in rows} == {"failed"}
    attempts = [row["attempts"] for row in rows]
    assert 0 < sum(1 for each in attempts if each) <= 14 and attempts.count(0) >= 16
    assert all("generation.retry_minutes" in row["reason"] for row in rows)


def test_a_question_that_fails_alone_is_no_outage():
    async def script(attempt, asks):
        if asks[0].question.id == "3":
            raise TeacherAway("HTTP 500: its prompt kills the server")
        return answers(asks)

    for in_flight in (1, 8):
        rows, teacher, _ = ask(script, MANY, attempts=3, requests_in_flight=in_flight)
        assert [row["outcome"] for row in rows].count("failed") == 1
        assert (rows[3]["attempts"], teacher.requests["3",]) == (3, 3)


@pytest.mark.parametrize("attempts", [2, 4])
def test_questions_that_are_never_answered_are_no_outage_when_they_alone_are_left(attempts):
    """Bug guarded: a stage waited ten minutes for the teacher at its end, since nine questions that
    failed for good were the last to be tried, and failed in a row.
    """
    bad = {str(number) for number in range(0, 27, 3)}

    async def script(attempt, asks):
        if asks[0].question.id in bad:
            raise TeacherAway("HTTP 500: oh no")
        await asyncio.sleep(0.02)
        return answers(asks)

    start = time.monotonic()
    rows, _, _ = ask(script, MANY, attempts=attempts, requests_in_flight=30, backoff_s=0.1)
    failed = {row["question_id"] for row in rows if row["outcome"] == "failed"}
    assert failed == bad and time.monotonic() - start < 5
    # and one try more, which found the teacher away before the first answer came
    tries = {row["attempts"] for row in rows if row["question_id"] in bad}
    assert attempts in tries <= {attempts, attempts + 1}


def test_a_teacher_whose_answers_are_odd_is_there():
    async def script(attempt, asks):
        raise TeacherError("no JSON")

    rows, _, _ = ask(script, MANY, attempts=2)
    assert {(row["outcome"], row["attempts"]) for row in rows} == {("failed", 2)}
