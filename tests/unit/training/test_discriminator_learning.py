"""What the discriminator is taught: which rationales are right, and what fills up its negatives."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from training_tiny import tiny_recipe

from qcrd_ray.data.records import Question
from qcrd_ray.demo.tokenizer import build_tokenizer
from qcrd_ray.method.examples import Example, Rationale, Source
from qcrd_ray.method.tokenization import tokenize_pairs
from qcrd_ray.tasks import build_task
from qcrd_ray.training.dataset import RoundQuestion, Row
from qcrd_ray.training.discriminator_learner import DiscriminatorLearner, by_label
from qcrd_ray.training.process_group import ProcessGroup

TASK = build_task(tiny_recipe().task)
VOTED = ("3 + 4 = 7 pens. So the answer is 7.", "4 + 3 = 7 pens. So the answer is 7.")
OTHERS = ("3 * 4 = 12 pens. So the answer is 12.", "3 + 4 = 8 pens. So the answer is 8.")
STUDENT = "4 * 3 = 12 pens. So the answer is 12."


def question(answer: str | None) -> RoundQuestion:
    """Two samples of the teacher a side, and one of the student, a negative by its source."""
    texts = {(i, 1): text for i, text in enumerate((*VOTED, *OTHERS, STUDENT))}
    first, second, third, fourth, student = (Rationale(tokens=tokens) for tokens in texts)
    example = Example(
        predict=(1,),
        explain=(1,),
        positives=(first, second),
        negatives=(third, fourth, replace(student, source=Source.STUDENT)),
    )
    row = Row(
        question=Question(id="q", question="Tom has 3 boxes of 4 pens. How many pens?"),
        input="Tom has 3 boxes of 4 pens. How many pens?",
        answer=answer,
        example=example,
        positives=VOTED,
        negatives=OTHERS,
    )
    return RoundQuestion(row=row, example=example, texts=texts, right={})


def sides(each: RoundQuestion) -> tuple[list[str], list[str]]:
    positives, negatives = (
        [each.texts[rationale.tokens] for rationale in side]
        for side in (each.example.positives, each.example.negatives)
    )
    return positives, negatives


def test_the_label_moves_the_teacher_s_rationales_and_no_others():
    """The vote is wrong here: D would learn that both right operations are the wrong ones."""
    moved = by_label(question("12"), TASK)
    assert sides(moved) == ([OTHERS[0]], [*VOTED, OTHERS[1], STUDENT])
    assert sides(by_label(question("7"), TASK)) == sides(question("7"))
    assert by_label(question(None), TASK) == question(None), "the vote, where there is no label"
    assert sides(by_label(question("99"), TASK))[0] == []


@pytest.fixture(scope="module")
def learner(tiny_student):
    def make(start=tiny_student, **changes) -> DiscriminatorLearner:
        alone = {"train.workers": 1, "train.zero_stage": 0, "discriminator.batch_size": 1}
        recipe = tiny_recipe(
            **alone | {f"discriminator.{name}": value for name, value in changes.items()}
        )
        return DiscriminatorLearner(
            start,
            recipe.discriminator,
            recipe.train,
            task=TASK,
            tokenizer=build_tokenizer(ends_input=True, max_tokens=128),
            words=["pens", "boxes"],
            seed=0,
            trust_remote_code=False,
            process_group=ProcessGroup.single(torch.device("cpu")),
        )

    return make


@pytest.fixture
def taught(learner, monkeypatch):
    """A function that trains a step and returns the rationales that it read."""
    module = "qcrd_ray.training.discriminator_learner"
    read: list[str] = []

    def recorded(tokenizer, questions, rationales, *, max_tokens):
        read.extend(rationales)
        return tokenize_pairs(tokenizer, questions, rationales, max_tokens=max_tokens)

    monkeypatch.setattr(f"{module}.tokenize_pairs", recorded)

    def train(each: RoundQuestion, **changes) -> list[str]:
        read.clear()
        learner(**changes).train([each], steps=1, phase="round 0")
        return list(read)

    return train


def with_two_positives_alone(each: RoundQuestion) -> RoundQuestion:
    return replace(each, example=replace(each.example, negatives=()))


def test_words_numbers_or_nothing_fill_up_the_negatives(taught):
    """Bug guarded: half of D's negatives are broken texts, and it learns to see `<unk>`."""
    each = with_two_positives_alone(question("7"))
    words, numbers, nothing = (
        taught(each, augment=augment) for augment in ("words", "numbers", "none")
    )
    assert words[:2] == numbers[:2] == nothing == list(VOTED)
    assert len(words) == 4 and all("<unk>" in text for text in words[2:])
    assert len(numbers) == 4 and not any("<unk>" in text for text in numbers)
    assert all(
        TASK.parse(text, each.row.question).answer not in ("7", None) for text in numbers[2:]
    )


def test_nothing_is_added_where_the_sides_are_even(taught):
    for augment in ("words", "numbers", "none"):
        assert taught(question("7"), augment=augment) == [*VOTED, *OTHERS, STUDENT]


def test_a_step_reads_the_sides_by_the_label_where_it_is_asked_to(taught):
    assert taught(question("12"), positives="vote") == [*VOTED, *OTHERS, STUDENT]
    assert taught(question("12"), positives="label") == [OTHERS[0], *VOTED, OTHERS[1], STUDENT]
    assert taught(question("99"), positives="label") == [], "no positive: nothing is better"


@pytest.mark.parametrize("tokens", [1, 120])
def test_a_token_budget_changes_nothing_that_is_learnt(learner, tiny_student, tmp_path, tokens):
    """Micro-batches of one step are added up before the one update, by the engine's own calls."""
    questions = [question("7"), question("12"), question(None), question("99")]
    start = shutil.copytree(tiny_student, tmp_path / "start")
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"dropout_rate": 0.0}))

    def taught(**changes):
        each = learner(start, batch_size=4, loss="cross_entropy", **changes)
        metrics = each.train(questions, steps=2, phase="round 0")
        return metrics, [parameter.detach() for parameter in each.discriminator.parameters()]

    metrics, weights = taught()
    again, same = taught(micro_batch_tokens=tokens)
    assert again == pytest.approx(metrics, abs=1e-5)
    for ours, theirs in zip(weights, same, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_checkpointing_and_bf16_reach_the_discriminator(learner):
    assert learner(gradient_checkpointing=True).discriminator.encoder.is_gradient_checkpointing
    half = learner(precision="bf16")
    assert half.train([question("7")], steps=1, phase="round 0")["loss"] != 0
    weight = half.discriminator.inner.weight
    assert weight.dtype == torch.float32, "one process keeps its weights, and casts them to read"
