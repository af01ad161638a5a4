"""Likelihoods against a plain forward pass, the evidence on samples, and the votes over them."""

from __future__ import annotations

from math import log

import pytest
import torch

from qcrd_ray.data.records import Question
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.base import EngineOptions
from qcrd_ray.inference.evidence import EvidenceReader, feature_names
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.inference.voting import (
    Ballot,
    Judges,
    Samples,
    best_sample,
    judged_vote,
    plain_vote,
    sample,
    winner_share,
)
from qcrd_ray.method.judge import Judge
from qcrd_ray.method.tokenization import tokenize, tokenize_inputs
from qcrd_ray.recipe import TaskRecipe
from qcrd_ray.tasks import build_task

TASK = build_task(TaskRecipe(kind="arithmetic"))
PROMPTS = ["explain: Tom has 12 apples.", "predict: 3 plus 4", "explain: 7"]
TEXTS = [["he has 12", "no"], ["7"], ["a b c d", "", "12 apples and 3"]]


def options(batch_size: int = 64) -> EngineOptions:
    return EngineOptions(device=torch.device("cpu"), batch_size=batch_size)


@pytest.fixture(scope="module", params=["tiny_student", "tiny_decoder"])
def folder(request):
    return request.getfixturevalue(request.param)


def test_token_losses_are_those_of_a_plain_forward_pass(folder):
    likelihood = Likelihood.load(folder, options())
    found = likelihood.token_losses(PROMPTS, TEXTS)
    model, tokenizer = likelihood.model, likelihood.tokenizer
    for prompt, texts, losses in zip(PROMPTS, TEXTS, found, strict=True):
        (inputs,) = tokenize_inputs(tokenizer, [prompt], max_tokens=10_000).rows
        for text, values in zip(texts, losses, strict=True):
            (target,) = tokenize(tokenizer, [text], max_tokens=10_000).rows
            if not target:
                assert values == []
                continue
            with torch.no_grad():
                if model.config.is_encoder_decoder:
                    logits = model(
                        input_ids=torch.tensor([inputs]), labels=torch.tensor([target])
                    ).logits[0]
                else:
                    both = torch.tensor([[*inputs, *target]])
                    logits = model(input_ids=both).logits[0, len(inputs) - 1 : -1]
            expected = torch.nn.functional.cross_entropy(
                logits, torch.tensor(target), reduction="none"
            )
            assert values == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_loss_does_not_depend_on_its_batch(folder):
    # guards against padding that reaches a shorter text's losses
    whole, single = (
        Likelihood.load(folder, options(size)).token_losses(PROMPTS, TEXTS) for size in (64, 1)
    )
    for a, b in zip(whole, single, strict=True):
        for first, second in zip(a, b, strict=True):
            assert first == pytest.approx(second, abs=1e-5)


def answered(text: str, answer: str | None, tokens: int = 3) -> HeadAnswer:
    return HeadAnswer(text=text, rationale=text, answer=answer, tokens=tokens)


def test_the_evidence_has_a_number_for_each_name(folder):
    inputs = ("student", "base", "label", "steps")
    likelihood = Likelihood.load(folder, options())
    reader = EvidenceReader(TASK, inputs, student=likelihood, base=likelihood)
    question = Question(id="q", question="Tom has 3 apples and buys 4.")
    samples = [
        answered("3 + 4 = 7. So the answer is 7.", "7"),
        answered("3 + 4 = 8. So the answer is 8.", "8"),
        answered("", None),
    ]
    ((right, wrong, empty),) = reader.read([question], [samples])
    names = feature_names(inputs)
    assert len(right) == len(names) == len(empty)
    number = dict(zip(names, right, strict=True))
    losses = likelihood.token_losses(["explain: " + question.question], [[samples[0].text]])[0][0]
    assert number["student_mean"] == pytest.approx(log(sum(losses) / len(losses) + 0.01))
    assert number["student_worst"] == pytest.approx(log(max(losses) + 0.01))
    assert number["student_length"] == pytest.approx(log(1 + len(losses)))
    assert number["base_mean"] == pytest.approx(number["student_mean"]), "one model for both here"
    label = likelihood.token_losses(["predict: " + question.question], [["7"]])[0][0]
    assert number["label"] == pytest.approx(log(sum(label) + 0.01))
    assert (number["steps_right"], number["steps_all_right"]) == (1.0, 1.0)
    assert dict(zip(names, wrong, strict=True))["steps_all_right"] == 0.0
    unread = dict(zip(names, empty, strict=True))
    assert (unread["student_mean"], unread["steps_right"]) == (log(0.01), 0.5)
    other = likelihood.token_losses(["predict: " + question.question], [["8"]])[0][0]
    mean = (sum(label) + sum(other)) / 2
    assert unread["label"] == pytest.approx(log(mean + 0.01)), "no answer: neither likely nor not"


def test_a_student_is_sampled_with_its_evidence(folder):
    engine = load_engine(folder, batch_size=4)
    reader = EvidenceReader(
        TASK, ("student",), student=Likelihood(engine.model, engine.tokenizer, options())
    )
    ballot = Ballot(samples=3, temperature=1.0, top_p=1.0, max_tokens=6, seed=1)
    questions = [Question(id=str(i), question=f"What is {i} plus 1?") for i in range(3)]
    drawn = sample(engine, reader, questions, ballot=ballot)
    assert [len(each.answers) for each in drawn] == [3, 3, 3]
    assert all(len(each.evidence) == 3 for each in drawn)
    alone = sample(engine, reader, questions[1:2], ballot=ballot)
    assert alone[0].answers == drawn[1].answers, "a question's samples depend on it alone"


# --- Votes, on samples whose scores are chosen by hand ---

SAMPLES = Samples(
    answers=(
        answered("first 7", "7", 5),
        answered("an 8", "8", 6),
        answered("another 8", "8", 7),
        answered("cut off", None, 8),
    ),
    evidence=((0.0,),) * 4,
)


def test_the_plain_vote_counts():
    vote = plain_vote(SAMPLES)
    assert (vote.answer, vote.text, vote.confidence) == ("8", "an 8", 0.5)
    assert vote.tokens == 26, "a vote costs all of its samples"


def test_the_judged_vote_weighs_and_shows_the_best_sample_of_the_winner():
    judge = Judge(["x"], hidden=1)  # slope 1, offset 0: the confidence is the share itself
    vote = judged_vote(SAMPLES, [0.9, 0.3, 0.6, 0.5], judge)
    total = 0.9**3 + 0.3**3 + 0.6**3 + 0.5**3
    assert (vote.answer, vote.text) == ("7", "first 7")
    assert vote.confidence == pytest.approx(0.9**3 / total)
    other = judged_vote(SAMPLES, [0.5, 0.3, 0.6, 0.1], judge)
    assert (other.answer, other.text) == ("8", "another 8")


def test_the_best_sample_must_hold_an_answer():
    best = best_sample(SAMPLES, [0.2, 0.3, 0.1, 0.99])
    assert (best.answer, best.confidence, best.tokens) == ("8", 0.3, 26)


def test_samples_without_any_answer_have_no_winner():
    silent = Samples(answers=(answered("hm", None), answered("", None)), evidence=((0.0,),) * 2)
    judge = Judge(["x"], hidden=1)
    for vote in (
        plain_vote(silent),
        judged_vote(silent, [0.9, 0.9], judge),
        best_sample(silent, [0.9, 0.9]),
    ):
        assert (vote.answer, vote.confidence, vote.tokens) == (None, 0.0, 6)
    assert winner_share([None, None], [0.9, 0.9]) == (None, 0.0)


def test_a_tie_goes_to_the_answer_that_came_first():
    tied = Samples(answers=(answered("b", "2"), answered("a", "1")), evidence=((0.0,),) * 2)
    assert plain_vote(tied).answer == "2"


def test_each_judge_sees_its_own_part_of_the_evidence():
    # guards against a judge that reads another one's columns
    judges = {
        name: Judge([feature], hidden=1) for name, feature in (("a", "label"), ("b", "steps_right"))
    }
    wanted = Judges(judges, ("label", "steps"))
    samples = [Samples(answers=(answered("x", "1"),), evidence=((0.1, 0.2, 0.3),))]
    assert wanted.evidence("a", samples) == [[[0.1]]]
    assert wanted.evidence("b", samples) == [[[0.2]]]
    assert set(wanted.scores(samples)) == {"a", "b"}
