"""Measures of answers and scores: accuracy with its interval, AUC, correlation with length.

Pure functions; validation, evaluation and the discriminator's metrics use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, correlation, pstdev
from typing import NamedTuple, TypedDict


class Accuracy(NamedTuple):
    """A proportion; ``low`` and ``high`` are the ends of its Wilson interval."""

    correct: int
    total: int
    accuracy: float
    low: float
    high: float


def accuracy(correct: int, total: int, *, confidence: float = 0.95) -> Accuracy:
    """A proportion with its Wilson score interval (E. B. Wilson, 1927), sound for small totals too.

    Raises:
        ValueError: nothing was counted, or more was correct than there is.
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"{correct} right of {total} is no proportion")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    # at 0 and 1 rounding would leave the proportion outside
    return Accuracy(correct, total, share, min(low, share), max(high, share))


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """The chance that a random positive scores above a random negative, ties counting half.

    None: one of them is empty.
    """
    if not positive or not negative:
        return None
    ranked = sorted([(score, True) for score in positive] + [(score, False) for score in negative])
    rank_sum, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        rank_sum += (start + end + 1) / 2 * sum(is_positive for _, is_positive in ranked[start:end])
        start = end
    return (rank_sum - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative))


def within_question_auc(
    positive: Sequence[Sequence[float]], negative: Sequence[Sequence[float]]
) -> float | None:
    """The mean of each question's own AUC, over questions with both kinds.

    A discriminator that knows only how hard a question is scores 0.5.
    """
    values = [value for value in map(auc, positive, negative) if value is not None]
    return sum(values) / len(values) if values else None


def length_correlation(scores: Sequence[float], lengths: Sequence[int]) -> float | None:
    """Pearson's correlation of scores with lengths.

    None: fewer than two, or one of them is constant.
    """
    if len(scores) < 2 or min(scores) == max(scores) or min(lengths) == max(lengths):
        return None
    return correlation(scores, lengths)


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> float | None:
    """How far confidences lie from the shares that are right (Naeini et al. 2015), in [0, 1].

    The mean over ``bins`` of equal width of |mean confidence - share right|, weighted by size.
    None: there are none.
    """
    if not confidences:
        return None
    members: dict[int, list[int]] = {}
    for i, confidence in enumerate(confidences):
        members.setdefault(min(int(confidence * bins), bins - 1), []).append(i)
    return sum(
        abs(sum(confidences[i] - right[i] for i in each)) for each in members.values()
    ) / len(confidences)


class JudgeQuality(TypedDict):
    """How well scores tell a question's right samples from its wrong ones.

    ``auc_within_question`` is None where no question has both; ``spread`` is the standard deviation
    of the scores; ``calibration_error`` is that of the winners' confidences.
    """

    auc_within_question: float | None
    two_sided: int  # questions with both right and wrong samples
    spread: float
    calibration_error: float | None


def judge_quality(
    scores: Sequence[Sequence[float]],
    right: Sequence[Sequence[bool]],
    *,
    confidences: Sequence[float],
    wins: Sequence[bool],
) -> JudgeQuality:
    """The quality of ``scores`` of samples that are ``right`` or not, ``[questions][samples]``.

    ``confidences`` and ``wins`` are those of each question's judged vote.
    """
    sides = [
        [
            [score for score, is_right in zip(*pair, strict=True) if is_right == side]
            for pair in zip(scores, right, strict=True)
        ]
        for side in (True, False)
    ]
    return {
        "auc_within_question": within_question_auc(*sides),
        "two_sided": sum(bool(a and b) for a, b in zip(*sides, strict=True)),
        "spread": pstdev([score for each in scores for score in each]),
        "calibration_error": expected_calibration_error(confidences, wins),
    }
