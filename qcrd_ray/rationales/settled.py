"""When a question has been asked enough: the samples of its next wave.

Pure, and exact: a wave of the posterior rule holds as many samples as would settle the vote if all
of them went to the leader. Fewer cannot settle it, so nothing is asked that one sample at a time
would have saved.
"""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.method.self_consistency import VoteCount, count_votes, lead_probability
from qcrd_ray.recipe import AdaptiveRecipe


def next_wave(answers: Sequence[str | None], *, k: int, adaptive: AdaptiveRecipe) -> int:
    """How many samples to ask next; 0: the vote is settled, or all ``k`` have been asked.

    Args:
        answers: what the samples so far vote for, in the order of asking; None abstains. One that
            abstains was asked all the same.
        adaptive: the rule.
    """
    left = k - len(answers)
    count = count_votes(answers)
    leader, runner_up = count.two_most
    if adaptive.rule == "window":
        agreed = _window_agrees(answers, count, adaptive.window)
        return 0 if agreed or _decided(leader, runner_up, left) else min(adaptive.window, left)

    def settled(more: int) -> bool:
        """Whether ``more`` votes for the leader would settle it."""
        return (
            _decided(leader + more, runner_up, left - more)
            or lead_probability(leader + more, runner_up) > adaptive.threshold
        )

    return next((more for more in range(left) if settled(more)), left)


def _decided(leader: int, runner_up: int, left: int) -> bool:
    """Whether the samples that are left cannot change the winner, nor make a tie."""
    return leader - runner_up > left


def _window_agrees(answers: Sequence[str | None], count: VoteCount, window: int) -> bool:
    """Whether the last whole window gave one answer, and that answer is ahead.

    ESC (Li et al. 2024, arXiv 2401.10480). The windows are the waves, so the last one is whole
    unless it is k that ended it.
    """
    last = set(answers[-window:])
    return len(answers) >= window and len(last) == 1 and last == set(count.leaders)
