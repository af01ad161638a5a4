"""Asking in waves: what is asked of a teacher, what becomes of a wave that fails, and who waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pytest

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Question
from qcrd_ray.rationales import blocks
from qcrd_ray.rationales.asking import Counts, RationaleGenerator
from qcrd_ray.rationales.requests import REQUEST_SCHEMA, request_id, sampling_of
from qcrd_ray.recipe import Recipe
from qcrd_ray.teacher import Stopped, TeacherAnswer, TeacherError, TeacherRefusal, TeacherRequest

Fault = Callable[[Sequence[TeacherRequest], int], Exception | None]


class Reciting:
    """A teacher that says a letter's answer for each sample, in order; a dot is no answer, `!` one
    that was cut off, and at the end of its letters it has no more.

    ``fault`` takes the requests and how often they have been made, and gives what is raised.
    """

    def __init__(self, said: Mapping[str, str], fault: Fault = lambda asks, time: None):
        self.said, self._fault = said, fault
        self.asked: list[tuple[str, int, int]] = []  # ids, samples, first
        self._times: Counter[tuple] = Counter()
        self.delay_s = 0.001

    def prompt(self, task, question) -> str:
        return question.question

    async def complete(self, asks: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        what = "".join(ask.question.id for ask in asks), asks[0].samples, asks[0].first
        assert {(ask.samples, ask.first) for ask in asks} == {what[1:]}
        self.asked.append(what)
        self._times[what] += 1
        await asyncio.sleep(self.delay_s)
        if error := self._fault(asks, self._times[what]):
            raise error
        return [
            TeacherAnswer(
                tuple(map(sample, self.said[ask.question.id][ask.first :][: ask.samples])),
                prompt_tokens=7,
            )
            for ask in asks
        ]


def sample(letter: str) -> Completion:
    """The answer is 1 for `a`, 2 for `b` ..."""
    number = ord(letter) - ord("a") + 1
    text = "I do not know." if letter == "." else f"So the answer is {number}."
    if letter == "!":
        return Completion(text="So the answer is 1.", finish_reason="length", tokens=10)
    return Completion(text=text, tokens=10)


ADAPTIVE = {"threshold": 0.95}


def recipe(*, vote: dict | None = None, adaptive: dict | None = ADAPTIVE, **generation) -> Recipe:
    split = {"generate": 1}
    return Recipe(
        name="t",
        run="/nowhere",
        task={"kind": "word_problems"},
        data={"train": split, "validation": split, "test": split},
        teacher={"source": "recording", "path": "none.jsonl"},
        student={"scratch": {}},
        sampling={"k": 10, "adaptive": adaptive},
        vote=vote or {},
        generation={"backoff_s": 0.001, "attempts": 3, **generation},
    )


def table(ids: str) -> pa.Table:
    rows = [
        {"id": f"h-{id}", "question_id": id, "question": f"{id}?", "choices": [], "gold": "1"}
        for id in ids
    ]
    return pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)


def ask(teacher: Reciting, settings: Recipe) -> tuple[list[dict], Counter[str]]:
    """The rows of all questions of ``teacher``, and what was told to the driver."""

    async def run():
        generate = RationaleGenerator(settings, teacher)
        sets = await generate(table("".join(teacher.said)))
        return sets, sum(generate.take_counts().values(), Counter())

    sets, told = asyncio.run(run())
    rows = [each.row() for each in sets]
    return pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA).to_pylist(), told


def ending(row: dict) -> tuple:
    return row["outcome"], row["vote"], row["samples_asked"], row["asked_until"]


def test_a_settled_question_is_asked_no_more_and_its_row_says_so():
    teacher = Reciting({"p": "aaaabbbbbb", "q": "aaabbbabbb"})
    (settled, split), told = ask(teacher, recipe(requests_in_flight=1))
    assert ending(settled) == ("accepted", "1", 4, "settled")
    assert (len(settled["completions"]), settled["vote_share"]) == (4, 1.0)
    assert ending(split) == ("accepted", "2", 10, "all_k")
    assert teacher.asked[:3] == [("p", 4, 0), ("q", 4, 0), ("q", 3, 4)]
    answers = [each["answer"] for each in split["completions"]]
    assert answers == ["1", "1", "1", "2", "2", "2", "1", "2", "2", "2"], "no sample twice"
    waves = len(teacher.asked)
    assert (told["tokens_in"], told["tokens_out"]) == (7 * waves, 10 * 14), "a prompt a wave"
    assert (told["rows"], told["accepted"], told["retries"]) == (2, 2, 0)
    assert told["sent"] == told["back"] == waves


def test_what_abstains_is_asked_and_settles_nothing():
    """Bug guarded: samples that were cut off by the token limit counted as votes for stopping, and
    abstained from the vote itself.
    """
    teacher = Reciting({"p": "!!!!aaaaaa", "q": "a.a.a.aaaa"})
    rows, _ = ask(teacher, recipe())
    assert [ending(row) for row in rows] == [
        ("accepted", "1", 8, "settled"),
        ("accepted", "1", 7, "settled"),
    ]
    silent = Reciting({"p": "." * 10})
    assert ending(ask(silent, recipe())[0][0]) == ("unparsed", None, 10, "all_k")


def test_a_tie_of_all_samples_is_no_consensus():
    (row,), _ = ask(Reciting({"p": "abababab.."}), recipe())
    assert ending(row) == ("no_consensus", None, 10, "all_k")


def test_the_unsettled_questions_of_a_request_are_asked_on_together():
    teacher = Reciting({"p": "aaaabbbbbb", "q": "aaabaaabbb", "r": "aabbaaaaaa"})
    rows, _ = ask(teacher, recipe(questions_per_request=3))
    assert teacher.asked == [("pqr", 4, 0), ("qr", 3, 4), ("r", 1, 7)]
    assert [ending(row)[2:] for row in rows] == [(4, "settled"), (7, "settled"), (8, "settled")]
    alone = Reciting(teacher.said)
    assert ask(alone, recipe())[0] == rows, "a group changes no row"


def failing(first: int, error: Exception, *, times: int = 99) -> Fault:
    return lambda asks, time: error if asks[0].first == first and time <= times else None


def test_a_wave_that_fails_and_passes_is_a_retry_and_no_sample_is_lost():
    teacher = Reciting({"p": "aaabaaabbb"}, failing(4, TeacherError("busy"), times=2))
    (row,), told = ask(teacher, recipe())
    assert ending(row) == ("accepted", "1", 7, "settled")
    assert (row["attempts"], told["retries"]) == (3, 2)
    assert teacher.asked == [("p", 4, 0), *[("p", 3, 4)] * 3]


@pytest.mark.parametrize(
    ("error", "outcome", "attempts"),
    [
        (TeacherError("the engine died"), "failed", 3),
        (Stopped("nothing left to spend"), "failed", 0),  # as never asked: the next run asks it
        (TeacherRefusal("too long"), "rejected_input", 1),
    ],
)
def test_a_later_wave_that_fails_leaves_the_question_to_vote_incomplete(error, outcome, attempts):
    """By default the row fails with that reason, since a vote over what is there is not the one
    that was wanted; its samples are kept, as they were paid for.
    """
    said = {"p": "aaabaaabbb"}
    (row,), told = ask(Reciting(said, failing(4, error)), recipe())
    assert ending(row) == (outcome, None, 4, "incomplete")
    assert (row["reason"], row["attempts"]) == (str(error), attempts)
    assert (len(row["completions"]), told["tokens_out"], told["tokens_in"]) == (4, 40, 7)
    (row,), _ = ask(Reciting(said, failing(4, error)), recipe(vote={"incomplete": "vote"}))
    assert ending(row) == ("accepted", "1", 4, "incomplete")
    assert row["vote_share"] == 0.75 and row["attempts"] > 0


def test_a_first_wave_that_fails_is_a_failed_row_under_either_rule():
    for incomplete in ("failed", "vote"):
        teacher = Reciting({"p": "aaaa"}, failing(0, TeacherError("no")))
        (row,), _ = ask(teacher, recipe(vote={"incomplete": incomplete}))
        assert (*ending(row), row["attempts"]) == ("failed", None, 0, "incomplete", 3)


def test_a_wave_that_comes_back_short_is_the_last():
    """Bug guarded: asked again and again for samples that a recording does not have."""
    said = {"p": "aaabb"}
    (row,), _ = ask(Reciting(said), recipe())
    assert ending(row) == ("failed", None, 7, "incomplete")
    assert row["reason"] == "5 of 7 completions came back"
    (row,), _ = ask(Reciting(said), recipe(vote={"incomplete": "vote"}))
    assert ending(row) == ("accepted", "1", 7, "incomplete")


def test_a_question_keeps_its_turn_until_it_is_settled():
    """Bug guarded: a first wave of every question of the block before any second one, so that a
    kill cost thousands of begun questions.
    """
    teacher = Reciting({id: "aaabaaabbb" for id in "pqrs"})
    ask(teacher, recipe(requests_in_flight=1))
    assert [id for id, *_ in teacher.asked] == list("ppqqrrss")


def test_a_question_that_waits_for_its_next_try_lets_others_ask():
    teacher = Reciting(
        {id: "aaaabbbbbb" for id in "pq"},
        lambda asks, time: TeacherError("no") if asks[0].question.id == "p" and time == 1 else None,
    )
    ask(teacher, recipe(requests_in_flight=1, backoff_s=0.05))
    assert [id for id, *_ in teacher.asked] == ["p", "q", "p"]


def test_a_stop_asks_begun_questions_to_their_end_and_begins_no_other(monkeypatch):
    """Bug guarded: Ctrl-C lost the answered waves of every question that was not settled."""
    monkeypatch.setattr(blocks, "SEND_EVERY_S", 0.01)
    teacher, kept = Reciting({id: "aaabaaabbb" for id in "pqrst"}), []
    teacher.delay_s = 0.1

    async def run() -> Counter[str]:
        generate = RationaleGenerator(recipe(requests_in_flight=2), teacher)
        asking = asyncio.ensure_future(
            generate(table("pqrst"), lambda sets: kept.extend(each.id for each in sets))
        )
        await asyncio.sleep(0.05)
        generate.draining = True
        counts, loop = Counter[str](), asyncio.get_running_loop()

        async def look() -> Counts:  # as an actor does, between two steps of its loop
            counts.update(generate.take_counts().get("", {}))
            return {"": counts}

        read = lambda: asyncio.run_coroutine_threadsafe(look(), loop).result()  # noqa: E731
        await asyncio.to_thread(blocks.drain, read)
        asking.cancel()
        return counts

    counts = asyncio.run(run())
    assert kept == ["h-p", "h-q"]
    assert [id for id, *_ in teacher.asked] == ["p", "q", "p", "q"]
    assert counts["sent"] == counts["back"] == 4


def test_the_setting_is_part_of_the_request_and_off_it_changes_no_id():
    """Bug guarded: a new key with the value null would ask every finished question again."""
    off = recipe(adaptive=None)
    assert "adaptive" not in sampling_of(off) and sampling_of(off)["seed"] == 0
    question = Question(id="p", question="p?")
    ids = {
        request_id(question, "p?", teacher={}, sampling=sampling_of(each))
        for each in (off, recipe())
    }
    assert len(ids) == 2
