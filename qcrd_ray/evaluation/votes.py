"""Predictions by votes of a student's samples, and how well its judges judge these samples.

The rows, all of the same n samples:

    vote of n                 every sample weighs the same
    judged vote of n          each weighs what the judge gives it
    judged vote of n (name)   the same by another of the recipe's judges
    best of n                 the sample that the judge scores highest
    any of n                  the ceiling of them all: right where any sample is, by looking
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qcrd_ray.data.records import Question
from qcrd_ray.evaluation.predictions import Prediction, student_predictions
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.voting import Judges, Samples, best_sample, judged_vote, plain_vote
from qcrd_ray.method.ranking import JudgeQuality, judge_quality

JUDGE = "judge"  # the recipe's own, among its judges


def vote_name(kind: str, n: int, judge: str = JUDGE) -> str:
    """The name of a row: `kind` is "vote", "judged vote", "best" or "any"."""
    return f"{kind} of {n}" + ("" if judge == JUDGE else f" ({judge})")


def vote_predictions(
    judges: Judges,
    questions: Sequence[Question],
    samples: Sequence[Samples],
    *,
    name: str,
    split: str,
    milliseconds: float | None = None,
) -> tuple[list[Prediction], dict[str, JudgeQuality]]:
    """The predictions of every row above, and the quality of each judge.

    ``questions`` have canonical gold answers; ``milliseconds`` is what the samples of one took.
    """
    n = len(samples[0].answers)
    scores = judges.scores(samples)
    rows = {
        vote_name("vote", n): [plain_vote(each) for each in samples],
        **{
            vote_name("judged vote", n, judge): [
                judged_vote(each, of_question, judges.judges[judge])
                for each, of_question in zip(samples, scored, strict=True)
            ]
            for judge, scored in scores.items()
        },
        vote_name("best", n): [
            best_sample(each, of_question)
            for each, of_question in zip(samples, scores[JUDGE], strict=True)
        ],
        vote_name("any", n): [
            _any_right(question, each) for question, each in zip(questions, samples, strict=True)
        ],
    }
    predictions = [
        replace(prediction, milliseconds=milliseconds)
        for row, answers in rows.items()
        for prediction in student_predictions(
            name=name, head=row, split=split, questions=questions, answers=answers
        )
    ]
    return predictions, _quality(questions, samples, scores, rows, n)


def _any_right(question: Question, samples: Samples) -> HeadAnswer:
    """A right sample where there is one, else the plain vote."""
    chosen = plain_vote(samples)
    for answer in samples.answers:
        if answer.answer == question.answer:
            chosen = replace(answer, tokens=samples.tokens)
            break
    return replace(chosen, confidence=None)


def _quality(
    questions: Sequence[Question],
    samples: Sequence[Samples],
    scores: Mapping[str, Sequence[Sequence[float]]],
    rows: Mapping[str, Sequence[HeadAnswer]],
    n: int,
) -> dict[str, JudgeQuality]:
    right = [
        [answer.answer == question.answer for answer in each.answers]
        for question, each in zip(questions, samples, strict=True)
    ]
    quality = {}
    for judge, scored in scores.items():
        winners = rows[vote_name("judged vote", n, judge)]
        quality[judge] = judge_quality(
            scored,
            right,
            confidences=[winner.confidence or 0.0 for winner in winners],
            wins=[
                winner.answer == question.answer
                for winner, question in zip(winners, questions, strict=True)
            ],
        )
    return quality
