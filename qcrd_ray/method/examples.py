"""What training reads: one question, tokenised, with its rationales. Token ids are plain integers;
a target ends with its EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

Tokens = tuple[int, ...]


class Source(StrEnum):
    """Where a rationale comes from."""

    TEACHER = "teacher"
    STUDENT = "student"  # an older snapshot of it
    CORRUPTED = "corrupted"  # a positive with a wrong step and what follows from it
    EVOLVED = "evolved"  # a positive as it would answer the same question with other numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Rationale:
    """One target of the `explain:` task. ``score`` is the discriminator's s in [0, 1], frozen for
    the round (None: not scored);
    ``weight`` is what it counts for in the loss (None: not weighed, see
    :mod:`qcrd_ray.method.weights`); ``reference`` is its summed loss under the student as it was at
    the start, in nats (None: not asked for, see :mod:`qcrd_ray.method.reference`).
    """

    tokens: Tokens
    source: Source = Source.TEACHER
    score: float | None = None
    weight: float | None = None
    reference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question for the student.

    ``predict`` and ``explain`` are its inputs under the two prefixes; ``label`` is the target of
    the first (None: it has no label); ``positives`` and ``negatives`` are targets of the second, in
    a fixed order, each text once (see :mod:`qcrd_ray.method.negatives`). ``first`` is the teacher's
    first sample as it came, right or wrong, and ``single`` the same reasoning closed by the label:
    what Distilling Step-by-Step and its single-task form are trained on (None: it could not be
    read, or there is no label).
    """

    predict: Tokens
    explain: Tokens
    label: Tokens | None = None
    positives: tuple[Rationale, ...] = ()
    negatives: tuple[Rationale, ...] = ()
    first: Tokens | None = None
    single: Tokens | None = None


class Counts(NamedTuple):
    """What the loss of a step is divided by: counts over the *global* batch, so that no sharding of
    it can change the loss.

    ``prediction`` is the T of METHOD.md 2b: label tokens, or labelled questions where
    ``prediction_mean`` is "examples".
    ``contrast`` is its N: questions that enter the contrastive term.
    """

    prediction: int = 0
    contrast: int = 0

    def plus(self, other: Counts) -> Counts:
        """The counts of both together (``+`` on a tuple would chain them)."""
        return Counts(self.prediction + other.prediction, self.contrast + other.contrast)
