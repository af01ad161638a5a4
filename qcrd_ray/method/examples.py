"""The training example: one question, tokenized, with its rationales; and a batch of them.

Token ids are plain integers. A target ends with its EOS.
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
    """One target of the `explain:` task.

    ``score``: the discriminator's s in [0, 1], frozen for the round; None: not scored.
    ``weight``: what it counts for in the loss (:mod:`qcrd_ray.method.weights`); None: not weighed.
    ``reference``: its summed loss in nats under the student at the start
    (:mod:`qcrd_ray.method.reference`); None: not needed.
    """

    tokens: Tokens
    source: Source = Source.TEACHER
    score: float | None = None
    weight: float | None = None
    reference: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question for the student.

    ``predict``, ``explain``: its inputs under the two prefixes.
    ``label``: the target of ``predict``; None: it has no label.
    ``positives``, ``negatives``: targets of ``explain``, in a fixed order, each text once
    (:mod:`qcrd_ray.method.negatives`).
    ``first``: the teacher's first sample as it came, right or wrong, which Distilling Step-by-Step
    is trained on; None: it could not be read.
    ``single``: the same reasoning closed by the label, for its single-task form; None: it could not
    be read, or there is no label.
    """

    predict: Tokens
    explain: Tokens
    label: Tokens | None = None
    positives: tuple[Rationale, ...] = ()
    negatives: tuple[Rationale, ...] = ()
    first: Tokens | None = None
    single: Tokens | None = None


class Counts(NamedTuple):
    """What the loss of a step is divided by.

    These are counts over the *global* batch, so that no sharding of it can change the loss.
    ``prediction`` is the T of METHOD.md 2b: label tokens, or labelled questions where
    ``prediction_mean`` is "examples". ``contrast`` is its N: questions that enter the contrastive
    term.
    """

    prediction: int = 0
    contrast: int = 0

    def plus(self, other: Counts) -> Counts:
        """The counts of both together (``+`` on a tuple would chain them)."""
        return Counts(self.prediction + other.prediction, self.contrast + other.contrast)


SOURCES = tuple(Source)


class MicroBatch(NamedTuple):
    """The questions that a worker takes at a time.

    A target refers to its input by the input's row. Questions without candidates have no row in
    what is ``[questions, ...]``.

    ``inputs``, ``input_mask``: ``[inputs, tokens]``, the `predict:` inputs and, for questions with
    candidates, the `explain:` inputs.
    ``labels``: ``[labels, tokens]``, padded with -100.
    ``label_rows``, ``label_real``: ``[labels]``, each one's input, and whether it is no dummy.
    ``candidates``: ``[candidates, tokens]``, all rationales, padded with -100.
    ``candidate_rows``, ``weights``: ``[candidates]``.
    ``scores``, ``references``: ``[candidates]``, nan where there is none.
    ``sources``: ``[candidates]``, places in :data:`SOURCES`.
    ``skips``: ``[candidates]``, how many of a candidate's first tokens its loss leaves out.
    ``rivals``: ``[rivals]``, the candidates that share their side of a question with another one;
    what is alone on its side is chosen without being scored.
    ``positives``, ``negatives``: ``[questions, rationales]``, indices into ``candidates``, padded
    with -1.
    ``draws``: ``[questions, 2]``, uniform in [0, 1), for objectives that choose at random.
    ``question_labels``: ``[questions]``, each one's row in ``labels``, -1 where it has none.
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
    rivals: Tensor
    question_labels: Tensor

    def to(self, device: torch.device | str) -> MicroBatch:
        """The same on ``device``; see :func:`copied_to`."""
        return MicroBatch(*(copied_to(tensor, device) for tensor in self))


def copied_to(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``; to a GPU from pinned memory, so that nothing waits for the copy."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
