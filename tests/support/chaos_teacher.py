"""The teacher of the chaos tests: an OpenAI-compatible endpoint that knows the right answers, says
the same to the same question each time, and counts what it was paid for.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from openai_server import HANG, half, reply, serving, status

from qcrd_ray.tasks.word_problems import generate

DELAY_S = 0.25  # of an answer


@dataclass(frozen=True)
class Asked:
    """One request: which question it is of, and which try of it."""

    question: str
    number: int  # of the question, from 0
    tries: int  # with this one
    body: dict


class ChaosTeacher:
    """``fault`` says to a request what the endpoint does in place of an answer; None: it answers.

    ``paid`` counts answers by question; what is no whole answer is not paid for.
    """

    def __init__(self, questions: int, seed: int):
        self._known = {each.question: each for each in generate(questions, seed=seed)}
        self._numbers = {question: number for number, question in enumerate(self._known)}
        self._lock = threading.Lock()
        self.url = ""
        self.forget()

    def forget(self) -> None:
        """Begin another trial."""
        self.fault: Callable[[Asked], object] = lambda asked: None
        self.paid: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()

    def answer(self, number: int, body: dict) -> object:
        """The script of :mod:`openai_server`."""
        content = body["messages"][-1]["content"]
        question = max((each for each in self._known if each in content), key=content.rfind)
        with self._lock:
            self._tries[question] += 1
            asked = Asked(question, self._numbers[question], self._tries[question], body)
        instead = self.fault(asked)
        if instead is not None:
            return instead
        time.sleep(DELAY_S)
        with self._lock:
            self.paid[question] += 1
        return self.sound(asked)

    def sound(self, asked: Asked) -> dict:
        """A whole answer: three samples, of which one is wrong at every other question."""
        known = self._known[asked.question]
        answer = reply(asked.body, text=f"{known.rationale} So the answer is {known.answer}.")
        if asked.number % 2:
            wrong = int(known.answer) + 1
            answer["choices"][-1]["message"]["content"] = f"Let me guess. So the answer is {wrong}."
        return answer


@contextmanager
def teaching(questions: int, seed: int) -> Iterator[ChaosTeacher]:
    teacher = ChaosTeacher(questions, seed)
    with serving(teacher.answer) as server:
        teacher.url = server.url
        yield teacher


# --- What an endpoint may do, each a fault for ChaosTeacher.fault ---


def for_seconds(seconds: float, answer: object) -> Callable[[Asked], object]:
    """``answer`` to everybody for ``seconds`` from now."""
    end = time.monotonic() + seconds
    return lambda asked: answer if time.monotonic() < end else None


OUTAGE = status(500, "the engine is being restarted")
BUSY = status(429, "slow down", headers={"Retry-After": "1"})


def hung(asked: Asked) -> object:
    """The first request of every twentieth question never returns."""
    return HANG if asked.number % 20 == 0 and asked.tries == 1 else None


def odd(asked: Asked, teacher: ChaosTeacher) -> object:
    """Every fifth question's first answer is one of four that no protocol knows."""
    if asked.number % 5 or asked.tries > 1:
        return None
    answer = teacher.sound(asked)
    match asked.number // 5 % 4:
        case 0:
            return 200, {}, _dumped({**answer, "usage": "plenty"})
        case 1:
            answer["choices"][0]["message"]["content"] += " \ud800"
            return 200, {}, _dumped(answer)
        case 2:
            return half(asked.body)
    return 200, {}, _dumped({**answer, "choices": []})


def _dumped(answer: dict) -> bytes:
    import json

    return json.dumps(answer).encode()
