"""The discriminator on questions that it has not learnt from: its numbers, on any workers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from training_tiny import tiny_recipe

from qcrd_ray.data.records import Question
from qcrd_ray.inference import Generated
from qcrd_ray.runs.discriminator_quality import has_collapsed, quality_sentence
from qcrd_ray.tasks import build_task
from qcrd_ray.training.discriminator_probe import fresh_metrics, probe
from qcrd_ray.training.process_group import ProcessGroup
from qcrd_ray.training.validation import Validator


def test_the_numbers_of_a_probe():
    """By hand: within a question 3 of 4 pairs and 1 of 1; over all, 8 of 9 pairs."""
    found = fresh_metrics(
        [[0.9, 0.5], [0.8], []],
        [
            [0.6, 0.1],
            [0.3],
            [],
        ],
    )
    assert found["auc_fresh_within_question"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["auc_fresh"] == pytest.approx(8 / 9)
    assert found["fresh_questions"] == 2 and found["fresh_right_share"] == 0.5
    mean = (0.9 + 0.5 + 0.8 + 0.6 + 0.1 + 0.3) / 6
    squares = [(s - mean) ** 2 for s in (0.9, 0.5, 0.8, 0.6, 0.1, 0.3)]
    assert found["fresh_score_spread"] == pytest.approx((sum(squares) / 6) ** 0.5)


def test_a_judge_of_difficulty_is_a_coin_within_a_question():
    """Bug guarded: an AUC over all questions is high where D knows only which are easy."""
    found = fresh_metrics([[0.9] * 3, [0.2]], [[0.9], [0.2] * 3])
    assert found["auc_fresh"] == pytest.approx((3 * 3 + 3 * 0.5 + 3 * 0.5) / 16)
    assert found["auc_fresh_within_question"] == 0.5


def test_what_was_not_there_is_left_out():
    assert fresh_metrics([[], []], [[], []]) == {}
    assert fresh_metrics([[0.5]], [[]]) == {
        "fresh_questions": 0,
        "fresh_right_share": 1.0,
        "fresh_score_spread": 0.0,
    }


# ------------------------------------------------------------------------------
# the probe itself, with an engine and a judge whose texts and scores are known

QUESTIONS = [
    Question(id=str(i), question=f"How many are {i} and 4?", answer=str(i + 4)) for i in range(5)
]


class Engine:
    """Four samples a question: right, wrong, wrong, and one without an answer."""

    def generate(self, prompts, *, n, temperature, **_):
        assert (n, temperature) == (4, 1.0)
        samples = []
        for prompt in prompts:
            assert prompt.startswith("explain: ")
            answer = int(prompt.split()[4]) + 4
            texts = [*(f" So the answer is {answer + i}. " for i in range(3)), "I do not know."]
            samples.append([Generated(text, 5, "stop") for text in texts])
        return samples


PARTS: list[torch.Tensor] = []


class Group(ProcessGroup):
    """One of several workers, whose part of a sum is kept in :data:`PARTS`."""

    def sum(self, tensor):
        PARTS.append(tensor)
        return tensor


def probed(group, *, questions: int = 100):
    """The samples' scores are 0.75 where right, 0.5 and 0.125 where wrong, 0 without an answer."""
    recipe = tiny_recipe()
    validator = Validator(
        recipe.student,
        QUESTIONS,
        task=build_task(recipe.task),
        heads=["label"],
        process_group=group,
    )
    validator.engine = lambda snapshot: Engine()
    seen = []

    def score_texts(inputs, texts):
        seen.extend(inputs)
        assert all(text == text.strip() for text in texts), "as the texts that D was trained on"
        return [(0.75, 0.5, 0.125, 0.0)[i % 4] for i in range(len(texts))]

    learner = SimpleNamespace(config=SimpleNamespace(probe=questions), score_texts=score_texts)
    return probe(learner, validator, "snapshot", seed=0), seen


def test_right_samples_are_ranked_above_wrong_ones_and_silent_ones_are_left_out():
    found, seen = probed(ProcessGroup.single(torch.device("cpu")))
    assert found["auc_fresh_within_question"] == 1.0 and found["fresh_questions"] == 5
    assert found["fresh_right_share"] == pytest.approx(1 / 3)
    scores = [0.75, 0.5, 0.125]
    mean = sum(scores) / 3
    spread = (sum((score - mean) ** 2 for score in scores) / 3) ** 0.5
    assert found["fresh_score_spread"] == pytest.approx(spread)
    assert seen == [question.question for question in QUESTIONS for _ in range(4)]


def test_as_many_questions_as_asked_and_none_for_0():
    alone = ProcessGroup.single(torch.device("cpu"))
    assert probed(alone, questions=2)[0]["fresh_questions"] == 2
    assert probed(alone, questions=0) == ({}, [])


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_shares_add_up_to_what_one_finds(workers):
    """Seven workers for five questions: two of them have none to ask."""
    PARTS.clear()
    for rank in range(workers):
        probed(Group(rank, workers, torch.device("cpu")))
    shares = list(PARTS)
    probed(Group(0, 1, torch.device("cpu")))
    assert len(shares) == workers and torch.equal(sum(shares), PARTS[-1])


# ------------------------------------------------------------------------------
# what is said of it

FINE = {"auc_fresh_within_question": 0.71, "fresh_questions": 60, "fresh_score_spread": 0.2}


@pytest.mark.parametrize(
    ("changes", "collapsed"),
    [
        ({}, False),
        ({"auc_fresh_within_question": 0.55, "fresh_score_spread": 0.02}, False),
        ({"auc_fresh_within_question": 0.549}, True),
        ({"fresh_score_spread": 0.0199}, True),
    ],
)
def test_a_judge_that_sees_nothing_is_called_collapsed(changes, collapsed):
    fresh = FINE | changes
    assert has_collapsed(fresh) == collapsed
    sentence = quality_sentence(fresh)
    assert ("collapsed" in sentence) == collapsed
    for part in ("60 held-out", f"{fresh['auc_fresh_within_question']:.2f}"):
        assert part in sentence
    assert f"{fresh['fresh_score_spread']:.3f}" in sentence


def test_what_was_not_measured_is_not_called_collapsed():
    assert quality_sentence({}) == "" and not has_collapsed({})
    alone = {"fresh_questions": 0, "fresh_right_share": 0.0, "fresh_score_spread": 0.2}
    assert "no held-out question had both" in quality_sentence(alone)
    assert not has_collapsed(alone)
