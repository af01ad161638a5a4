"""The discriminator, equation (1), s = D(question, rationale) in [0, 1], and its training step.

An encoder, max pooling over its tokens and two linear layers, as in the paper. A decoder-only model
serves as an encoder too: its last token has seen all others. It is saved as a folder of its own,
``config.json`` and ``model.safetensors``, from which :meth:`Discriminator.load` rebuilds it without
a recipe.

One training step minimises equation (2), or a loss in its place, over the questions that have
rationales of both kinds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from qcrd_ray.method.collation import members_matrix, pad_rows
from qcrd_ray.method.examples import Tokens, copied_to
from qcrd_ray.method.losses import bradley_terry_terms, cross_entropy_terms, discriminator_terms
from qcrd_ray.method.student import evaluating


class Discriminator(nn.Module):
    """The discriminator D: ``forward`` gives logits, whose sigmoid is the score s.

    Losses are taken of either. :meth:`score` gives s. ``config`` is the Hugging Face configuration
    that ``encoder`` was built from: its own, or that of an encoder-decoder whose encoder it is.
    """

    def __init__(
        self, encoder: PreTrainedModel, config: PretrainedConfig, *, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.inner = nn.Linear(encoder.config.hidden_size, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[pairs]`` of ``tokens`` and ``mask`` ``[pairs, tokens]``.

        Padding never wins the maximum.
        """
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = states.masked_fill(mask[:, :, None] == 0, torch.finfo(states.dtype).min).amax(
            dim=1
        )
        return (
            self.outer(self.dropout(torch.relu(self.inner(self.dropout(pooled)))))
            .squeeze(1)
            .float()
        )

    def score(self, pairs: Sequence[Tokens], *, batch_size: int = 64) -> list[float]:
        """s of each tokenized pair, in their order, in eval mode and without gradient.

        A batch holds pairs of similar length.
        """
        device = self.outer.weight.device
        parts: list[Tensor] = []
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
        pad = self.config.pad_token_id or 0
        with torch.no_grad(), evaluating(self):
            for start in range(0, len(order), batch_size):
                chunk = order[start : start + batch_size]
                tokens, mask = pad_rows([pairs[i] for i in chunk], pad)
                parts.append(self(copied_to(tokens, device), copied_to(mask, device)).sigmoid())
        # read once at the end: a batch is made while the device works on the one before
        scores = dict(zip(order, torch.cat(parts).tolist(), strict=True)) if parts else {}
        return [scores[i] for i in range(len(pairs))]

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        hidden: int = 256,
        dropout: float = 0.1,
        layers: int | None = None,
        trust_remote_code: bool = False,
    ) -> Discriminator:
        """A new one on a pretrained encoder (hub id or folder); the linear layers are random."""
        model = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
        )
        return cls.from_model(model, hidden=hidden, dropout=dropout, layers=layers)

    @classmethod
    def from_model(
        cls,
        model: PreTrainedModel,
        *,
        hidden: int = 256,
        dropout: float = 0.1,
        layers: int | None = None,
    ) -> Discriminator:
        """A new one on the encoder of ``model``, which it takes over.

        An encoder-decoder's decoder is dropped, and all but the first ``layers`` of the encoder.

        Raises:
            ValueError: the encoder has fewer layers.
        """
        encoder = _encoder(model)
        if layers is not None:
            _keep_layers(encoder, layers)
            model.config.num_hidden_layers = layers  # what it is built from again
        return cls(encoder, model.config, hidden=hidden, dropout=dropout)

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write ``config.json``, ``model.safetensors`` and the encoder's own code, if it has any.

        ``facts`` (AUC, max_tokens ...) are kept in the configuration.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.config, "auto_map") and self.config.name_or_path:
            for file in Path(self.config.name_or_path).glob("*.py"):
                shutil.copy(file, folder)
        # a path of this machine
        encoder = {
            name: value for name, value in self.config.to_dict().items() if name != "_name_or_path"
        }
        settings = {
            "hidden": self.inner.out_features,
            "dropout": self.dropout.p,
            "encoder": encoder,
            **facts,
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        save_file(
            {
                name: tensor.detach().cpu().contiguous()
                for name, tensor in self.state_dict().items()
            },
            folder / "model.safetensors",
        )

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device = "cpu",
        trust_remote_code: bool = False,
    ) -> Discriminator:
        """What :meth:`save` wrote, in eval mode.

        Raises:
            FileNotFoundError: the folder holds no discriminator.
            ValueError: the encoder has code of its own, and ``trust_remote_code`` is False.
        """
        settings = json.loads((Path(folder) / "config.json").read_text())
        config = _encoder_config(settings["encoder"], folder, trust_remote_code=trust_remote_code)
        model = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
        discriminator = cls(
            _encoder(model),
            config,
            hidden=settings["hidden"],
            dropout=settings["dropout"],
        )
        discriminator.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return discriminator.to(device).eval()


def _encoder_config(
    settings: dict[str, Any], folder: str | Path, *, trust_remote_code: bool
) -> PretrainedConfig:
    own_class = settings.get("auto_map", {}).get("AutoConfig")
    if own_class is None or not trust_remote_code:
        settings = dict(settings)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    config = get_class_from_dynamic_module(own_class, folder)(**settings)
    config.name_or_path = str(folder)  # where AutoModel finds the code
    return config


def _encoder(model: PreTrainedModel) -> PreTrainedModel:
    if model.config.is_encoder_decoder:
        return cast("PreTrainedModel", model.get_encoder())  # typed as a Tensor or Module
    # a decoder-only model would keep keys and values for texts that are never continued
    model.config.use_cache = False
    return model


def _keep_layers(encoder: PreTrainedModel, layers: int) -> None:
    """Drop all but the first ``layers`` layers.

    Raises:
        ValueError: it has fewer.
    """
    total = encoder.config.num_hidden_layers
    if layers > total:
        raise ValueError(f"the encoder has {total} layers, not {layers}")
    kinds = set(encoder._no_split_modules or ())
    for module in list(encoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ModuleList) and type(child[0]).__name__ in kinds:
                setattr(module, name, child[:layers])
    encoder.config.num_hidden_layers = layers
    if getattr(encoder.config, "layer_types", None):
        encoder.config.layer_types = encoder.config.layer_types[:layers]


DiscriminatorLoss = Literal["paper", "cross_entropy", "bradley_terry"]
LOSSES = {  # each of logits: positives, negatives, and their masks
    "paper": lambda positive, negative, *masks: discriminator_terms(
        positive.sigmoid(), negative.sigmoid(), *masks
    ),
    "cross_entropy": cross_entropy_terms,
    "bradley_terry": bradley_terry_terms,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A question's tokenized (question, rationale) pairs: right ones and others."""

    positives: tuple[Tokens, ...]
    negatives: tuple[Tokens, ...]

    @property
    def two_sided(self) -> bool:
        """Whether equation (2) is defined on it; the global count of these divides the loss."""
        return bool(self.positives and self.negatives)

    @property
    def pairs(self) -> int:
        """How many it holds."""
        return len(self.positives) + len(self.negatives)

    @property
    def longest(self) -> int:
        """The tokens of its longest pair."""
        return max((len(pair) for pair in (*self.positives, *self.negatives)), default=0)


class DiscriminatorBatch(NamedTuple):
    """The pairs of some two-sided questions.

    ``tokens``, ``mask``: ``[pairs, tokens]``. ``positives``, ``negatives``: ``[questions,
    rationales]``, indices of pairs, padded with -1.
    """

    tokens: Tensor
    mask: Tensor
    positives: Tensor
    negatives: Tensor

    def to(self, device: torch.device | str) -> DiscriminatorBatch:
        """The same on ``device``."""
        return DiscriminatorBatch(*(copied_to(tensor, device) for tensor in self))


def collate_contrasts(contrasts: Sequence[Contrast], *, pad: int) -> DiscriminatorBatch:
    """The two-sided questions of ``contrasts``; the others are left out.

    A batch without any holds one pair that no question refers to.
    """
    pairs: list[Tokens] = []
    members: tuple[list[range], list[range]] = ([], [])
    for contrast in contrasts:
        if contrast.two_sided:
            for ranges, side in zip(members, (contrast.positives, contrast.negatives), strict=True):
                ranges.append(range(len(pairs), len(pairs) + len(side)))
                pairs.extend(side)
    tokens, mask = pad_rows(pairs or [(pad,)], pad)
    return DiscriminatorBatch(tokens, mask, *(members_matrix(side) for side in members))


def split_contrasts(contrasts: Sequence[Contrast], *, tokens: int) -> list[list[Contrast]]:
    """Micro-batches of at most ``tokens`` tokens, padding included; there is at least one.

    A question stays whole, since its loss compares its pairs: one that is larger stands alone.
    Questions of similar length share a micro-batch where there are several. Since the loss is
    divided by a global count, no split changes it.
    """
    two_sided = [contrast for contrast in contrasts if contrast.two_sided]
    if _padded_tokens(two_sided) <= tokens:
        return [two_sided]
    batches: list[list[Contrast]] = [[]]
    for contrast in sorted(two_sided, key=lambda each: each.longest):
        if batches[-1] and _padded_tokens([*batches[-1], contrast]) > tokens:
            batches.append([])
        batches[-1].append(contrast)
    return batches


def _padded_tokens(contrasts: Sequence[Contrast]) -> int:
    longest = max((contrast.longest for contrast in contrasts), default=0)
    return longest * sum(contrast.pairs for contrast in contrasts)


class DiscriminatorOutput(NamedTuple):
    """The result of one discriminator step.

    ``loss`` is the batch's part of the global loss, to call backward on. ``sums`` is what to log,
    to be added over batches and ranks; see :attr:`DiscriminatorStep.sums`.
    """

    loss: Tensor
    sums: Tensor


class DiscriminatorStep(nn.Module):
    """The discriminator and its loss as one module, for ``deepspeed.initialize``.

    ``loss`` is equation (2) on scores ("paper"), or a proper loss on logits. alpha3 is not in it:
    under Adam a constant factor does nothing, the learning rate decays per round instead.
    """

    sums = (
        "discriminator",
        "two_sided",
        "positive_score",
        "positives",
        "negative_score",
        "negatives",
    )

    def __init__(
        self,
        discriminator: Discriminator,
        *,
        loss: DiscriminatorLoss = "paper",
        smoothing: float = 0.0,
    ) -> None:
        assert not smoothing or loss == "cross_entropy", "the other losses have no targets"
        super().__init__()
        self.discriminator = discriminator
        self.terms = (
            partial(cross_entropy_terms, smoothing=smoothing) if smoothing else LOSSES[loss]
        )

    def forward(self, batch: DiscriminatorBatch, two_sided: int) -> DiscriminatorOutput:
        """``two_sided`` is the number of two-sided questions in the global batch."""
        logits = self.discriminator(batch.tokens, batch.mask)
        (positive, is_positive), (negative, is_negative) = [
            (logits[side.clamp(min=0)], side >= 0) for side in (batch.positives, batch.negatives)
        ]
        total = self.terms(positive, negative, is_positive, is_negative).sum() + logits.sum() * 0.0
        sums = [
            total,
            logits.new_tensor(len(batch.positives)),
            *_score_sum(positive, is_positive),
            *_score_sum(negative, is_negative),
        ]
        return DiscriminatorOutput(
            total / max(1, two_sided), torch.stack([value.detach().float() for value in sums])
        )

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Means for the log from sums added over micro-batches, ranks and steps."""
        total, two_sided, positive, positives, negative, negatives = sums.tolist()
        if not two_sided:
            return {}
        return {
            "loss": total / two_sided,
            "score_positive": positive / positives,
            "score_negative": negative / negatives,
        }


def _score_sum(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return (logits.sigmoid() * mask).sum(), mask.sum()
