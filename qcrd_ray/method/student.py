"""The student's training step: encode each question once, score rival rationales, train on some.

All K rationales of a question share one encoding of it (:mod:`qcrd_ray.method.prefix`). Where there
is a choice they are scored without gradient, and only the selected positive and negative are run
with it (exact without dropout, METHOD.md 2b). The scoring pass uses the encoding that will be
trained on, dropout and all, through a decoder in eval mode: a question's candidates are compared
under equal conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)

from qcrd_ray.method.examples import Counts, MicroBatch
from qcrd_ray.method.losses import IGNORED, target_nll, token_nll, token_peaks
from qcrd_ray.method.objectives import Forward, Objective, Targets
from qcrd_ray.method.prefix import EncodedInputs, encode_inputs
from qcrd_ray.method.selection import Selection
from qcrd_ray.method.token_losses import ends_in_head

DROPOUTS = (
    "dropout_rate",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
)


class StudentOutput(NamedTuple):
    """The result of one student step.

    ``loss``: the micro-batch's part of the global loss, to call backward on.
    ``sums``: what to log, to be added over batches and ranks (:meth:`Objective.metrics`).
    ``tokens``: how many the student read, an integer scalar to be added likewise; float32 would
    round the tokens of a long round.
    """

    loss: Tensor
    sums: Tensor
    tokens: Tensor


def load_student(
    path: str | Path, *, dropout: float | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """An encoder-decoder or a decoder-only model from a folder or the hub, in float32.

    ``dropout`` (None: the model's own) replaces all of its rates. Weights are read from safetensors
    only: reading a pickled checkpoint can run foreign code.

    Raises:
        ValueError: the model is of neither kind.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    auto = auto_class(config)
    if auto is None:
        raise ValueError(
            f"{path}: a {config.model_type} model writes no text; a student is an encoder-decoder"
            " or a causal language model"
        )
    if dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    return auto.from_pretrained(
        path,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )


def auto_class(
    config: PretrainedConfig,
) -> type[AutoModelForSeq2SeqLM | AutoModelForCausalLM] | None:
    """What loads a student of this configuration; None: it is of neither kind."""
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    is_causal = any(
        name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ()
    )
    return AutoModelForCausalLM if is_causal else None


class StudentStep(nn.Module):
    """The student and its objective as one module, for ``deepspeed.initialize``.

    ``forward`` does everything for one micro-batch, so every parameter is used under the engine's
    hooks, and makes the same module calls whatever the micro-batch holds. With W workers and G
    micro-batches, DeepSpeed divides by both: call ``engine.backward(W * G * output.loss)``.
    """

    def __init__(self, student: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        ends_in_head(student)  # tried here, before an engine shares out the weights

    def forward(self, batch: MicroBatch, counts: Counts) -> StudentOutput:
        """``counts`` are those of the global batch (``total_counts``), not those of ``batch``."""
        inputs = encode_inputs(self.student, batch.inputs, batch.input_mask)
        forward = Forward(self._targets(inputs, batch.labels, batch.label_rows))
        if self.objective.explains:
            nll = None
            if self.objective.chooses_by_loss:
                nll = self._rivals_losses(inputs, batch)
            chosen = self.objective.select(nll, batch)
            forward = Forward(forward.label, chosen, *self._chosen(batch, inputs, chosen))
        loss, sums = self.objective.loss(batch, forward, counts)
        return StudentOutput(loss, self.objective.vector(sums), self._tokens(batch, forward.chosen))

    @torch.no_grad()
    def candidate_losses(self, batch: MicroBatch) -> Tensor:
        """The summed loss of each candidate, ``[candidates]``, in nats.

        In eval mode, without gradient.
        """
        with evaluating(self.student):
            inputs = encode_inputs(self.student, batch.inputs, batch.input_mask)
            return self._targets(inputs, batch.candidates, batch.candidate_rows, batch.skips).nll

    @torch.no_grad()
    def _rivals_losses(self, inputs: EncodedInputs, batch: MicroBatch) -> Tensor:
        """The mean loss of each candidate that has a rival, ``[candidates]``, 0 for the others."""
        rows = batch.rivals
        with evaluating(self.student):
            mean = self._targets(
                inputs, batch.candidates[rows], batch.candidate_rows[rows], batch.skips[rows]
            ).mean
        return mean.new_zeros(len(batch.candidates)).index_copy(0, rows, mean)

    def _tokens(self, batch: MicroBatch, chosen: Selection | None) -> Tensor:
        """How many tokens the step reads, a scalar, the same for both kinds of student.

        Each input once, each label, the candidates that are scored to choose, and then those
        chosen. Neither padding, nor dummy rows, nor what gradient checkpointing reads again.
        """
        real = batch.label_real.any() | bool(len(batch.positives))
        inputs = batch.input_mask.sum() * real
        labels = ((batch.labels != IGNORED).sum(dim=1) * batch.label_real).sum()
        if chosen is None:
            return inputs + labels
        lengths = (batch.candidates != IGNORED).sum(dim=1)
        read = [(side, side >= 0) for side in chosen]
        if self.objective.chooses_by_loss:
            read += [
                (side, (side >= 0) & ((side >= 0).sum(dim=1, keepdim=True) > 1))
                for side in (batch.positives, batch.negatives)
            ]
        return inputs + labels + sum(lengths[side].where(counts, 0).sum() for side, counts in read)

    def _chosen(
        self, batch: MicroBatch, inputs: EncodedInputs, chosen: Selection
    ) -> tuple[Targets, Targets]:
        """Losses of the chosen candidates with gradient, ``[questions, chosen]`` a side.

        An absent one is a target without tokens.
        """
        indices = torch.cat([side.flatten() for side in chosen])
        lengths = (batch.candidates != IGNORED).sum(dim=1)
        # The step waits for the device here and nowhere else: running the chosen at the length of
        # the longest of them is worth more than the wait.
        found, found_lengths = torch.stack([indices, lengths[indices.clamp(min=0)]]).tolist()
        present = [place for place, index in enumerate(found) if index >= 0]
        longest = max((found_lengths[place] for place in present), default=1)
        rows = indices.new_tensor([found[place] for place in present] or [0])
        places = indices.new_tensor(present)
        targets = self._targets(
            inputs,
            batch.candidates[rows, :longest],
            batch.candidate_rows[rows],
            batch.skips[rows],
        )
        sizes = [side.numel() for side in chosen]

        def by_side(values: Tensor) -> list[Tensor]:
            """``[chosen and present, ...]`` as [positive, negative], 0 where absent."""
            spread = values.new_zeros(len(indices), *values.shape[1:]).index_copy(
                0, places, values[: len(places)]
            )
            return [
                part.view(*side.shape, *values.shape[1:])
                for part, side in zip(spread.split(sizes), chosen, strict=True)
            ]

        nll, tokens = by_side(targets.nll), by_side(targets.tokens)
        peaks = [None, None] if targets.peaks is None else by_side(targets.peaks)
        return Targets(nll[0], tokens[0], peaks[0]), Targets(nll[1], tokens[1], peaks[1])

    def _targets(
        self, inputs: EncodedInputs, labels: Tensor, rows: Tensor, skips: Tensor | None = None
    ) -> Targets:
        """One decoder pass: the losses of ``labels`` ``[targets, tokens]``.

        ``rows`` ``[targets]`` is the row of each one's input. The first ``skips`` ``[targets]``
        tokens of each are read and not counted.
        """
        counted = labels
        if skips is not None:
            counted = labels.masked_fill(
                torch.arange(labels.shape[1], device=labels.device) < skips[:, None], IGNORED
            )
        if self.objective.needs_token_peaks:  # of all tokens at once, so the logits are made whole
            logits = inputs.logits(labels, rows)
            return Targets(
                *target_nll(token_nll(logits, counted), counted), token_peaks(logits, counted)
            )
        return Targets(*target_nll(inputs.losses(labels, rows, counted), counted))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in eval mode for the block, and back as it was afterwards."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
