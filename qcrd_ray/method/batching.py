"""Which questions a step trains on: a pure function of (seed, step).

So neither resuming nor the number of workers changes what is learnt. Random numbers follow the same
rule: each depends on the seed and on what it is for (:func:`keyed_seed`), and on nothing else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeVar

import torch

T = TypeVar("T")


def keyed_seed(seed: int, *key: object) -> int:
    """A 63-bit seed from the run's seed and a key such as ("augment", question, step).

    It is the same on every machine and under every version of Python.
    """
    text = "/".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_random(seed: int, *key: object) -> random.Random:
    """A random generator for ``key`` alone; see :func:`keyed_seed`."""
    return random.Random(keyed_seed(seed, *key))


def global_batch(*, seed: int, step: int, questions: int, batch_size: int) -> list[int]:
    """Indices of the ``batch_size`` questions of step ``step`` (from 0), over all workers.

    The steps read one endless stream, in which every ``questions`` entries are a fresh permutation:
    an epoch visits each question once, and a batch may span two epochs.

    Raises:
        ValueError: there is no question.
    """
    if questions < 1:
        raise ValueError("there is no question to train on")
    batch = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(position, questions)
        batch.append(int(_permutation(seed, epoch, questions)[offset]))
    return batch


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, questions: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(keyed_seed(seed, "epoch", epoch))
    return torch.randperm(questions, generator=generator)


def shard_batch(
    items: Sequence[T],
    *,
    workers: int,
    micro_batch_size: int | None = None,
    lengths: Sequence[int] | None = None,
) -> list[list[list[T]]]:
    """Share out a global batch: ``result[worker][micro_batch]`` is a list of items.

    Every worker gets the same number of micro-batches (some may be empty: ZeRO 3 needs the same
    calls everywhere), of at most ``micro_batch_size`` items (None: a worker's whole share at once).
    With ``lengths``, items of similar length share a micro-batch. That saves padding and changes
    nothing else, because losses are divided by global counts.
    """
    order = list(range(len(items)))
    if lengths is not None:
        order.sort(key=lambda i: lengths[i])
    share = -(-len(items) // workers)
    size = min(micro_batch_size or share, share) or 1
    slots = max(1, -(-share // size))
    shards: list[list[list[T]]] = [[[] for _ in range(slots)] for _ in range(workers)]
    for place, i in enumerate(order):
        shards[place % workers][place // (workers * size)].append(items[i])
    return shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The rounds of a training over ``questions`` questions, and the batches of their steps.

    A round is the paper's "iteration", which it does not define: here a fixed block of steps,
    counted from round 0. ``size`` is its length in ``unit`` s.
    """

    count: int
    unit: Literal["steps", "epochs"]
    size: int
    questions: int
    batch_size: int
    seed: int

    @property
    def steps_per_round(self) -> int:
        """Steps in each round; a round of epochs is rounded up to whole steps."""
        return (
            self.size if self.unit == "steps" else -(-self.size * self.questions // self.batch_size)
        )

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.count * self.steps_per_round

    def steps(self, round: int) -> range:
        """The steps of round ``round``."""
        return range(round * self.steps_per_round, (round + 1) * self.steps_per_round)

    def stretches(self, round: int, every: int | None, *, first: int | None = None) -> list[range]:
        """The steps of a round from ``first`` on (None: all), cut after each ``every`` of them.

        The cuts are counted from the round's first step, wherever ``first`` is. None: no cut.
        """
        steps = self.steps(round)
        first, every = steps.start if first is None else first, every or len(steps)
        return [
            range(max(start, first), min(start + every, steps.stop))
            for start in range(steps.start, steps.stop, every)
            if start + every > first
        ]

    def batch(self, step: int) -> list[int]:
        """Indices of the questions that step ``step`` trains on, over all workers."""
        return global_batch(
            seed=keyed_seed(self.seed, "batches"),
            step=step,
            questions=self.questions,
            batch_size=self.batch_size,
        )

    def question_indices(self, round: int) -> list[int]:
        """Indices of the questions that occur in a round, each once, in ascending order.

        Only these are sampled and scored.
        """
        return sorted({index for step in self.steps(round) for index in self.batch(step)})
