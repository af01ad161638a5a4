"""A training that has gone wrong: losses that are no numbers any more, or that run away.

Both are looked at before a round's weights are saved, so the last checkpoint is a good one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Literal

import torch

from qcrd_ray.errors import UserError
from qcrd_ray.training.process_group import ProcessGroup

log = logging.getLogger(__name__)

# The metrics that are losses of a target's token in nats, by the head that they are of.
TOKEN_LOSSES = {
    "prediction": "label",
    "explanation": "rationale",
    "positive_nll": "rationale",
}
_NEVER = torch.iinfo(torch.long).max
_ADVICE = (
    "A lower train.learning_rate, more train.warmup_steps, a smaller objective.beta or a smaller"
    " train.clip mends most of these."
)


class FiniteLosses:
    """Remembers the first step whose sums are not finite; a GPU is not waited for until asked."""

    def __init__(self, process_group: ProcessGroup):
        self._process_group = process_group
        self._first = torch.full((), _NEVER, dtype=torch.long, device=process_group.device)

    def see(self, step: int, sums: torch.Tensor) -> None:
        """Look at the sums of a step, on this worker's device."""
        first = torch.where(sums.isfinite().all(), _NEVER, step)
        self._first = torch.minimum(self._first, first)

    def check(self) -> None:
        """All workers call it.

        Raises:
            UserError: the loss of a step on any worker was not finite.
        """
        first = int(self._process_group.min(self._first))
        if first != _NEVER:
            raise UserError(
                f"the student's loss was not finite at step {first + 1:,}. The checkpoints before"
                f" it are whole; nothing after it was kept. {_ADVICE}"
            )


def check_runaway(
    means: Mapping[str, float], *, round: int, vocabulary: int, action: Literal["stop", "warn"]
) -> None:
    """Judge the mean losses of round ``round`` (from 0), as the log has them.

    A student that knows nothing loses ln(``vocabulary``) nats on a token. One that loses twice as
    much after a round of learning has been driven away from its targets, which a negative term
    without a bound does, or a learning rate that is too high. Round 0 is not judged: random weights
    begin above that.

    Raises:
        UserError: a loss has run away, and ``action`` (`train.runaway`) is "stop".
    """
    bound = 2 * math.log(vocabulary)
    for name, head in TOKEN_LOSSES.items():
        if round == 0 or means.get(name, 0.0) <= bound:
            continue
        message = (
            f"the {head} loss has run away: {means[name]:.1f} nats a token in round {round + 1},"
            f" where guessing among {vocabulary:,} tokens costs {bound / 2:.1f}. {_ADVICE}"
        )
        if action == "stop":
            raise UserError(f'{message} train.runaway: "warn" trains on.')
        log.warning("%s", message)
