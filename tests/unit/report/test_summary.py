"""What a finished run prints about the question that it asked its own endpoint."""

from __future__ import annotations

from qcrd_ray.data.records import Question
from qcrd_ray.report.summary import answer_lines
from qcrd_ray.serving.messages import PredictResponse, VoterResponse

QUESTION = Question(id="q", question="3 and 4?", answer="7")


def answered(**more) -> PredictResponse:
    return PredictResponse(label="8", text="8", rationale="3 + 4 = 7", rationale_answer="7", **more)


def test_a_vote_is_told_with_its_kind_its_size_and_its_confidence():
    samples = [VoterResponse(text="7", answer="7", weight=0.5, score=0.9, tokens=2)] * 2
    voted = answered(vote="7", vote_kind="judged", confidence=0.934, samples=samples)
    said = "vote       7 (judged, of 2 samples, confidence 0.93)"
    assert answer_lines(QUESTION, voted)[-1] == said


def test_without_a_judge_no_vote_is_told():
    assert answer_lines(QUESTION, answered())[-1] == "quality    no discriminator in this student"
