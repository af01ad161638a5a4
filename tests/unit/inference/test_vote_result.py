"""A vote's result, and the judge of a student folder beside each engine."""

from __future__ import annotations

import threading

import pytest
import torch
from endpoint_tiny import QUESTION, with_judge

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import AnswerRequest, JudgeRequest, Student
from qcrd_ray.inference.evidence import FEATURES
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.likelihood import Likelihood
from qcrd_ray.inference.vote_result import judged_result, plain_result
from qcrd_ray.method.judge import Judge
from qcrd_ray.models.student_folder import StudentFolder


def answer(said, finish_reason="stop", *, rationale=""):
    return HeadAnswer(text="", rationale=rationale, answer=said, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([answer("7"), answer("7"), answer("8"), answer(None)], ("7", 0.5, {"7": 2, "8": 1})),
        ([answer("7"), answer("8")], (None, None, {"7": 1, "8": 1})),
        ([answer(None)], (None, None, {})),
        ([answer("7", "length"), answer("8")], ("8", 0.5, {"8": 1})),
    ],
)
def test_confidence_is_a_share_of_all_samples(samples, expected):
    """Over the parsed samples alone, one lucky answer of many unreadable ones would be certain."""
    result = plain_result(samples)
    assert (result.answer, result.confidence, result.votes) == expected
    assert result.shares == {said: n / len(samples) for said, n in expected[2].items()}


def test_a_judged_vote_by_hand():
    """Weights are the scores' third powers: 0.9 and 0.6 against twice 0.5 and an unreadable one.

    The winner is shown by its best sample, and its share is calibrated.
    """
    judge = Judge(FEATURES["label"], hidden=2)
    judge.slope, judge.offset = 2.0, -1.0
    samples = [
        answer("8", rationale="a"),
        answer("7", rationale="b"),
        answer("7", rationale="c"),
        answer("8", rationale="d"),
        answer(None),
    ]
    scores = [0.5, 0.6, 0.9, 0.5, 0.8]
    total = 0.125 + 0.216 + 0.729 + 0.125 + 0.512
    result = judged_result(samples, scores, judge)
    share = (0.216 + 0.729) / total
    assert result.shares == pytest.approx({"8": 0.25 / total, "7": share})
    assert [voter.weight for voter in result.voters] == pytest.approx(
        [score**3 / total for score in scores]
    )
    odds = (share / (1 - share)) ** 2 * torch.e**-1
    assert (result.answer, result.rationale) == ("7", "c")
    assert result.confidence == pytest.approx(odds / (1 + odds))
    assert plain_result(samples).answer is None, "which is a tie without the judge"


def test_a_judged_vote_without_any_answer_has_no_winner_and_no_confidence():
    """Bug guarded: the calibration of a share of 0 is a small number, and no confidence in None."""
    judge = Judge(FEATURES["label"], hidden=2)
    result = judged_result([answer(None), answer(None)], [0.4, 0.2], judge)
    assert (result.answer, result.confidence, result.rationale) == (None, None, None)
    assert result.shares == {} and result.votes == {}


@pytest.fixture(scope="module")
def judged_folder(exported_student, tmp_path_factory):
    inputs = ("student", "base", "label", "steps")
    folder = tmp_path_factory.mktemp("judged") / "student"
    return StudentFolder.open(with_judge(exported_student, folder, inputs=inputs))


def drawn(student, questions, *, seed=3):
    sampling = student.vote_sampling(4, seed=seed)
    requests = [
        AnswerRequest(question=question, head="rationale", sampling=sampling)
        for question in questions
    ]
    return [
        JudgeRequest(question=question, samples=tuple(samples))
        for question, samples in zip(questions, student.generate(requests), strict=True)
    ]


QUESTIONS = [Question(id="1", question=QUESTION), Question(id="2", question="What is 2 plus 2?")]


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_the_judge_reads_on_the_model_that_samples(judged_folder, engine, monkeypatch):
    """Bug guarded: a model that reads and samples in two threads at once; and a student that lies
    in memory once more for its judge. The base is loaded, once.
    """
    loaded, load = [], Likelihood.load

    def watched(folder, options):
        loaded.append(folder)
        return load(folder, options)

    monkeypatch.setattr(Likelihood, "load", watched)
    student = Student(judged_folder, engine=engine)
    assert loaded == [judged_folder.judge.base]
    requests = drawn(student, QUESTIONS)
    together = student.judge_samples(requests)
    alone = [student.judge_samples([request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-5), "neighbours in a batch change a score"
    with student._engine_lock:
        scoring = threading.Thread(target=student.judge_samples, args=(requests,))
        scoring.start()
        scoring.join(0.3)
        assert scoring.is_alive(), "it did not wait for the engine"
    scoring.join()


def test_an_engine_without_a_model_of_transformers_gets_one_for_its_judge(judged_folder):
    """As vLLM. The scores are the same, and the engine need not wait for them."""
    student = Student(judged_folder, engine="transformers")

    class Elsewhere:
        generate = student.engine.generate

    from qcrd_ray.inference.sample_judge import SampleJudge

    other = SampleJudge.load(judged_folder, Elsewhere(), student.engine.options)
    assert student.judge.uses_engine and not other.uses_engine
    requests = drawn(student, QUESTIONS)
    scores = other.score([r.question for r in requests], [r.samples for r in requests])
    assert scores == [pytest.approx(each) for each in student.judge_samples(requests)]


def test_votes_are_drawn_as_the_judge_has_learnt_to_judge(judged_folder, exported_student):
    """At another temperature a confidence is that of other samples."""
    student = Student(judged_folder, engine="transformers", judged=False)
    usual = student.vote_sampling(4)
    assert (usual.n, usual.temperature, usual.top_p) == (4, 1.5, 0.9)
    assert student.vote_sampling(4, temperature=0.5).temperature == 0.5
    assert student.judge is None and student.vote_kind(None) == "plain"
    without = Student(StudentFolder.open(exported_student), engine="transformers")
    assert without.vote_sampling(4).temperature == 0.7
