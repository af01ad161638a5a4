"""The built-in questions: right, varied, the same everywhere, and never shared between splits or
with the shipped models' training.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys

import pytest

from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks import word_problems as wp

TASK = build_task(TaskRecipe(kind="word_problems", instruction=""))
SAMPLE = {kind: wp.generate(400, seed=5, kind=kind) for kind in ("seen", "held_out", "pretraining")}
EVERY = [question for questions in SAMPLE.values() for question in questions]


def operations(rationale: str) -> tuple[str, ...]:
    """The operations of a gold rationale, in their order."""
    return tuple(word for word in rationale.split() if word in wp.STEPS)


def equations(rationale: str) -> list[tuple[int, str, int, int]]:
    return [
        (int(a), op, int(b), int(c))
        for a, op, b, c in re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", rationale)
    ]


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def test_each_step_is_right_and_leads_to_the_next_and_the_last_is_the_answer():
    """Guards wrong gold: the answers are worked out again from the steps, by Python and not by the
    generator.
    """
    for question in EVERY:
        steps = equations(question.rationale)
        assert 1 <= len(steps) <= 3
        for a, op, b, c in steps:
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op] == c
        assert all(before[3] == after[0] for before, after in itertools.pairwise(steps))
        assert question.answer == str(steps[-1][3])


def test_every_number_a_rationale_starts_from_is_told_in_the_question():
    """Guards unsolvable stories."""
    for question in EVERY:
        steps = equations(question.rationale)
        told = numbers(question.question)
        assert steps[0][0] in told
        assert all(step[2] in told for step in steps)


def test_numbers_stay_small_enough_for_one_token_each():
    for question in EVERY:
        assert all(
            2 <= number <= wp.LARGEST
            for number in numbers(question.question) + numbers(question.rationale)
        )


def test_about_half_of_the_stories_hold_a_number_of_no_use():
    """A story of n steps needs n + 1 numbers; one more is a distractor. Guards distractors that got
    lost.
    """
    extra = [len(numbers(q.question)) - len(operations(q.rationale)) - 1 for q in SAMPLE["seen"]]
    assert set(extra) == {0, 1}
    assert 0.4 < sum(extra) / len(extra) < 0.6
    plain = wp.generate(100, seed=5, distractors=0.0, steps=(1, 2))
    assert all(len(numbers(q.question)) == len(operations(q.rationale)) + 1 <= 3 for q in plain)


def test_no_gap_of_a_template_is_left_open_and_nobody_plays_two_parts():
    for question in EVERY:
        assert not re.search(r"[{}]|  ", question.question + question.rationale)
        assert question.question.endswith("?") and question.rationale.endswith(".")


def test_there_are_many_different_stories():
    """Guards a generator that falls into few texts: hardly two of 400 stories differ in names
    alone.
    """
    assert len({wp.skeleton(q.question) for q in SAMPLE["seen"]}) > 350
    assert {op for q in SAMPLE["seen"] for op in operations(q.rationale)} == set("+-*/")
    assert {len(operations(q.rationale)) for q in SAMPLE["seen"]} == {1, 2, 3}


def test_held_out_pairs_of_operations_occur_in_held_out_stories_and_nowhere_else():
    assert all(wp.is_held_out(operations(q.rationale)) for q in SAMPLE["held_out"])
    assert not any(
        wp.is_held_out(operations(q.rationale))
        for kind in ("seen", "pretraining")
        for q in SAMPLE[kind]
    )


def test_the_task_reads_its_own_answers_back():
    for question in EVERY:
        assert TASK.check(question) == ""
        assert (
            TASK.parse(
                TASK.explanation(question.rationale, question.answer, question), question
            ).answer
            == question.answer
        )


def test_the_pools_of_seeds_and_of_pretraining_are_disjoint():
    """The proof that splits cannot overlap: what a call draws from is known from its arguments
    alone.
    """
    of_seeds = [wp.pools(seed=seed, kind="seen") for seed in range(wp.SEED_POOLS)]
    assert len(frozenset.union(*of_seeds)) == wp.SEED_POOLS
    assert not frozenset.union(*of_seeds) & wp.pools(seed=0, kind="pretraining")
    assert wp.pools(seed=1, kind="seen") == wp.pools(
        seed=1 + wp.SEED_POOLS, kind="seen"
    )  # as the docstring warns


@pytest.mark.parametrize("kind", ["seen", "held_out", "pretraining"])
def test_a_question_lies_in_its_calls_pools_whatever_its_people_are_called(kind):
    for question in SAMPLE[kind]:
        assert wp.pool(question.question) in wp.pools(seed=5, kind=kind)
        renamed = question.question.replace("apples", "kites").replace("Tom", "Zed")
        for old, new in (("Sara", "Mia"), ("pears", "nuts")):
            renamed = (
                question.question
                if new in question.question
                else question.question.replace(old, new)
            )
            assert wp.pool(renamed) == wp.pool(question.question)


def test_splits_share_no_question_not_even_a_renamed_one():
    splits = [
        SAMPLE["pretraining"],
        SAMPLE["held_out"],
        *(wp.generate(300, seed=seed) for seed in (1, 2, 3)),
    ]
    skeletons = [{wp.skeleton(q.question) for q in split} for split in splits]
    assert sum(map(len, skeletons)) == len(set.union(*skeletons))


def test_no_question_and_no_id_comes_twice_in_a_split():
    questions = wp.generate(600, seed=2, steps=(1,), distractors=0.0)
    assert len({q.question for q in questions}) == len({q.id for q in questions}) == 600


def test_a_longer_split_starts_with_the_shorter_one():
    assert wp.generate(50, seed=9)[:20] == wp.generate(20, seed=9)
    assert wp.generate(20, seed=9) != wp.generate(20, seed=17)


def test_questions_are_the_same_in_every_process():
    """Guards `hash()` and set order creeping in: they change with PYTHONHASHSEED."""
    program = (
        "from qcrd_ray.tasks.word_problems import generate; print([q.question for q in generate(30,"
        " seed=4)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {str([q.question for q in wp.generate(30, seed=4)]) + "\n"}
