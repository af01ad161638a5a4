"""Self-consistency: the answers of several samples of one question vote.

METHOD.md section 1, step 2; Wang et al. 2022, arXiv 2203.11171. The teacher's rationales and the
endpoint's samples are counted here, so that a share means the same in both places. There are two
shares, and they differ as soon as one sample holds no answer:

- :meth:`VoteCount.share_of_votes`, of the votes that were cast: how far the samples that answered
  agree. A rationale set keeps it as ``vote_share``.
- :meth:`VoteCount.share_of_samples`, of all samples: how often the model gives this answer. A
  sample without an answer counts against it, so one readable sample among many unreadable ones is
  not certain. The endpoint returns it as ``confidence``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCount:
    """``votes`` by answer, in the order of first appearance, and how many ``samples`` there were.

    Samples that abstained are among ``samples`` and not among ``votes``.
    """

    votes: Mapping[str, int]
    samples: int

    @property
    def leaders(self) -> list[str]:
        """The answers with the most votes: several at a tie, none where nobody voted."""
        most = max(self.votes.values(), default=0)
        return [answer for answer, count in self.votes.items() if count == most]

    @property
    def two_most(self) -> tuple[int, int]:
        """The votes of the leader and of the runner-up, 0 where there is none; equal at a tie."""
        first, second, *_ = sorted((*self.votes.values(), 0, 0), reverse=True)
        return first, second

    def share_of_votes(self, answer: str) -> float:
        """The share of the votes cast that went to ``answer``."""
        return self.votes[answer] / sum(self.votes.values())

    def share_of_samples(self, answer: str) -> float:
        """The share of all samples, abstentions included, that voted for ``answer``."""
        return self.votes[answer] / self.samples


def count_votes(answers: Iterable[str | None]) -> VoteCount:
    """Count one answer for each sample; None abstains."""
    answers = list(answers)
    votes = Counter(answer for answer in answers if answer is not None)
    return VoteCount(votes=dict(votes), samples=len(answers))


@lru_cache(maxsize=4096)
def lead_probability(leader: int, runner_up: int) -> float:
    """P(the leader is the likelier answer of the two), given the votes for each.

    Adaptive-Consistency (Aggarwal et al. 2023, arXiv 2305.11860): with a uniform prior, the
    leader's share p of the votes for these two is Beta(leader + 1, runner_up + 1), and this is
    P(p > 1/2). At whole numbers it is P(Binomial(n, 1/2) <= leader), n = leader + runner_up + 1.
    """
    n = leader + runner_up + 1
    return sum(comb(n, i) for i in range(leader + 1)) / 2**n


def weigh_votes(answers: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """The share of all samples' weights that each answer has, in the order of first appearance.

    A sample without an answer (None) counts against all, as in :meth:`VoteCount.share_of_samples`.
    The shares of samples of equal weight are those of :func:`count_votes`.
    """
    total = sum(weights)
    shares: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            shares[answer] = shares.get(answer, 0.0) + (weight / total if total else 0.0)
    return shares
