"""What training reads: one question, tokenised, with its rationales. Token ids are plain integers;
a target ends with its EOS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

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


SOURCES = tuple(Source)


class MicroBatch(NamedTuple):
    """The questions that a worker takes at a time. A target names the input that it belongs to by
    that input's row.

    ``inputs``, ``input_mask``: ``[inputs, tokens]``, the `predict:` inputs and, for questions with
    candidates, the `explain:` inputs. ``labels``, ``label_rows``, ``label_real``: ``[labels,
    tokens]`` padded with -100, and two ``[labels]``.
    ``candidates``, ``candidate_rows``, ``scores``, ``weights``, ``sources``: all rationales,
    ``[candidates, tokens]`` and four ``[candidates]``; a score is nan where no discriminator gave
    one, a source is its place in :data:`SOURCES`.
    ``references``: ``[candidates]``, their summed losses under the start, nan where nobody asked
    for them.
    ``skips``: ``[candidates]``, how many of a candidate's first tokens its loss leaves out.
    ``positives``, ``negatives``: ``[questions, rationales]`` indices into ``candidates``, padded
    with -1; a question without candidates
    has no row here. ``draws``: ``[questions, 2]``, uniform in [0, 1), for objectives that choose at
    random. ``question_labels``: ``[questions]``, each one's row in ``labels``, -1 where it has
    none.
    """

    inputs: Tensor
    input_mask: Tensor
    labels: Tensor
    label_rows: Tensor
    label_real: Tensor
    candidates: Tensor
    candidate_rows: Tensor
    scores: Tensor
    weights: Tensor
    references: Tensor
    sources: Tensor
    positives: Tensor
    negatives: Tensor
    draws: Tensor
    skips: Tensor
    question_labels: Tensor

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same on ``device``."""
        return MicroBatch(*(tensor.to(device, non_blocking=True) for tensor in self))
