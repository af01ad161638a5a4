"""The result of a vote of one question's samples, with all that its caller may want to see.

The endpoint and `qcrd predict` both answer with it. A plain vote is careful: it names no winner at
a tie, and a sample that was cut off has no vote, since its last number need not be its answer. In a
judged vote that is the judge's to weigh; it is the vote that an evaluation measures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.voting import Samples, judged_vote
from qcrd_ray.method.judge import POWER, Judge
from qcrd_ray.method.self_consistency import count_votes, weigh_votes

VoteKind = Literal["plain", "judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter:
    """A sample and its vote.

    ``answer`` is None where it votes for none. ``weight`` is its share of all samples' weights;
    ``score`` is the judge's, None in a plain vote.
    """

    sample: HeadAnswer
    answer: str | None
    weight: float
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResult:
    """``confidence`` in [0, 1] and ``rationale``, of the sample that is shown for it, go with
    ``answer``; all three are None where there is no winner.

    The confidence of a plain vote is the winner's share of all samples, that of a judged vote its
    calibrated share of their weights. ``shares`` are those of each answer, without calibration.
    """

    kind: VoteKind
    voters: tuple[Voter, ...]
    shares: dict[str, float]
    answer: str | None = None
    confidence: float | None = None
    rationale: str | None = None

    @property
    def votes(self) -> dict[str, int]:
        """How many samples gave each answer."""
        return dict(Counter(each.answer for each in self.voters if each.answer is not None))


def plain_result(samples: Sequence[HeadAnswer]) -> VoteResult:
    """Every sample weighs the same. The first that gives the winner is shown."""
    answers = [sample.answer if sample.finish_reason != "length" else None for sample in samples]
    count = count_votes(answers)
    voters = tuple(
        Voter(sample=sample, answer=answer, weight=1 / len(samples))
        for sample, answer in zip(samples, answers, strict=True)
    )
    shares = {answer: count.share_of_samples(answer) for answer in count.votes}
    if len(count.leaders) != 1:
        return VoteResult(kind="plain", voters=voters, shares=shares)
    (winner,) = count.leaders
    return VoteResult(
        kind="plain",
        voters=voters,
        shares=shares,
        answer=winner,
        confidence=shares[winner],
        rationale=_shown(samples[answers.index(winner)]),
    )


def judged_result(
    samples: Sequence[HeadAnswer], scores: Sequence[float], judge: Judge
) -> VoteResult:
    """Each sample weighs what the judge's score gives it: see
    :func:`qcrd_ray.inference.voting.judged_vote`. The winner's best-scored sample is shown.
    """
    weights = [score**POWER for score in scores]
    total = sum(weights)
    voters = tuple(
        Voter(
            sample=sample,
            answer=sample.answer,
            weight=weight / total if total else 0.0,
            score=score,
        )
        for sample, score, weight in zip(samples, scores, weights, strict=True)
    )
    shares = weigh_votes([sample.answer for sample in samples], weights)
    shown = judged_vote(Samples(answers=tuple(samples), evidence=()), scores, judge)
    if shown.answer is None:
        return VoteResult(kind="judged", voters=voters, shares=shares)
    return VoteResult(
        kind="judged",
        voters=voters,
        shares=shares,
        answer=shown.answer,
        confidence=shown.confidence,
        rationale=_shown(shown),
    )


def _shown(sample: HeadAnswer) -> str:
    return sample.rationale or sample.text
