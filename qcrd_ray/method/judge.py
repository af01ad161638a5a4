"""The judge: the chance that a rationale which the student sampled ends in the right answer.

Where the paper's discriminator reads text, the judge reads evidence: a few numbers on each sample
(:mod:`qcrd_ray.inference.evidence`), most of them losses that the student's own likelihood gives
for one forward pass. A question's samples are judged beside each other: each number enters as it
is, and as its distance from the question's mean. One hidden layer is trained by cross-entropy on
samples that are known to be right or wrong, for questions that the student was not trained on: its
samples for questions that it has learnt look unlike its samples for others.

The scores weigh a vote over the samples (:func:`qcrd_ray.method.self_consistency.weigh_votes`),
after DIVERSE (Li et al. 2022, arXiv 2206.02336). The winner's share of the weights becomes a
confidence by Platt's scaling (1999).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

_STEPS, _LEARNING_RATE, _WEIGHT_DECAY = 400, 1e-2, 0.3
_FOLDS = 5
POWER = 3.0  # of a score, as a vote's weight: from 2 to 5 it makes no difference that was seen

EvidenceRows = Sequence[Sequence[Sequence[float]]]  # [questions][samples][features]


class Judge(nn.Module):
    """``forward`` gives logits, whose sigmoid is the score in [0, 1]. ``features`` names its input.

    ``mean`` and ``scale`` ``[2 * features]`` standardise the input. ``slope`` and ``offset`` are
    those of the confidence.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Sequence[str], *, hidden: int) -> None:
        super().__init__()
        self.features, size = tuple(features), 2 * len(features)
        self.inner = nn.Linear(size, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.slope, self.offset = 1.0, 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[samples]`` of the :func:`relative` evidence ``[samples, 2 * features]``."""
        return self.outer(torch.tanh(self.inner((inputs - self.mean) / self.scale))).squeeze(-1)

    @torch.no_grad()
    def score(self, evidence: EvidenceRows) -> list[list[float]]:
        """The score of each sample of each question, ``[questions][samples]``."""
        if not any(map(len, evidence)):
            return [[] for _ in evidence]
        scores = iter(self(relative(evidence)).sigmoid().tolist())
        return [[next(scores) for _ in each] for each in evidence]

    def confidence(self, share: float) -> float:
        """The chance that the winner of a weighted vote is right, from its share in [0, 1]."""
        return 1 / (1 + exp(-(self.slope * log_odds(share) + self.offset)))

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``; ``facts`` stand in the config too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "features": list(self.features),
            "hidden": self.inner.out_features,
            "slope": self.slope,
            "offset": self.offset,
            **facts,
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """What :meth:`save` wrote, in eval mode."""
        settings = json.loads((Path(folder) / "config.json").read_text())
        judge = cls(settings["features"], hidden=settings["hidden"])
        judge.slope, judge.offset = settings["slope"], settings["offset"]
        judge.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return judge.eval()


def relative(evidence: EvidenceRows) -> Tensor:
    """``[questions][samples][features]`` as ``[all samples, 2 * features]``.

    Each number as it is, then its distance from the mean over the question's samples.
    """
    rows = [torch.tensor(each, dtype=torch.float32) for each in evidence if each]
    return torch.cat([torch.cat([row, row - row.mean(dim=0)], dim=1) for row in rows])


def log_odds(share: float) -> float:
    """log(p / (1 - p)), of a share held between 0.001 and 0.999."""
    share = min(max(share, 1e-3), 1 - 1e-3)
    return log(share / (1 - share))


# --- Training ---


def fit_judge(
    evidence: EvidenceRows,
    right: Sequence[Sequence[bool]],
    features: Sequence[str],
    *,
    hidden: int = 16,
    seed: int = 0,
) -> Judge:
    """Train a judge by cross-entropy on samples that are known to be ``right`` or wrong."""
    inputs = relative(evidence)
    targets = torch.tensor([float(value) for each in right for value in each])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(features, hidden=hidden)
    judge.mean.copy_(inputs.mean(dim=0))
    judge.scale.copy_(inputs.std(dim=0).clamp(min=1e-6))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(judge(inputs), targets).backward()
        optimizer.step()
    return judge.eval()


def cross_fitted_scores(
    evidence: EvidenceRows,
    right: Sequence[Sequence[bool]],
    features: Sequence[str],
    *,
    hidden: int = 16,
    seed: int = 0,
) -> list[list[float]]:
    """The scores of each question's samples by a judge trained on the other folds' questions."""
    scores: list[list[float]] = [[] for _ in evidence]
    order = torch.randperm(len(evidence), generator=torch.Generator().manual_seed(seed)).tolist()
    folds = [order[fold::_FOLDS] for fold in range(_FOLDS)]
    for held_out in folds:
        others = [i for fold in folds if fold is not held_out for i in fold]
        judge = fit_judge(
            [evidence[i] for i in others],
            [right[i] for i in others],
            features,
            hidden=hidden,
            seed=seed,
        )
        for i, values in zip(held_out, judge.score([evidence[i] for i in held_out]), strict=True):
            scores[i] = values
    return scores


def fit_confidence(shares: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Platt's scaling of the winners' ``shares``: the slope and offset of :meth:`Judge.confidence`.

    The targets are smoothed as Platt does, so that a clean separation has a finite slope.
    """
    odds = torch.tensor([log_odds(share) for share in shares], dtype=torch.float64)
    hits = sum(right)
    high, low = (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2)
    targets = torch.tensor([high if value else low for value in right], dtype=torch.float64)
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(parameters[0] * odds + parameters[1], targets)
        value.backward()
        return value

    optimizer.step(loss)
    slope, offset = parameters.tolist()
    return slope, offset
