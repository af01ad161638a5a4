"""The student, and one training step of it: encode each question once, score all rationales, train on the chosen ones.

All K rationales of a question share one encoder pass. They are scored without gradient, and only the selected positive and negative are
run with it (exact without dropout, METHOD.md 2b). The scoring pass sees the encoding that will be trained on, dropout and all, through
a decoder in eval mode: a question's candidates are compared under equal conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from qcrd_ray.method.collation import MicroBatch
from qcrd_ray.method.examples import Counts
from qcrd_ray.method.losses import IGNORED, target_nll, token_peaks
from qcrd_ray.method.objectives import Forward, Objective, Targets
from qcrd_ray.method.selection import Selection


class StepOutput(NamedTuple):
    """``loss``: the micro-batch's part of the global loss, to call backward on. ``sums``: what to log, added over batches and ranks."""

    loss: Tensor
    sums: Tensor


def load_student(path: str | Path, *, dropout: float | None = None, trust_remote_code: bool = False) -> PreTrainedModel:
    """An encoder-decoder from a folder or the hub, in float32. ``dropout`` (None: the model's own) replaces all of its rates.

    From safetensors only: reading a pickled checkpoint can run foreign code. ValueError: the model is no encoder-decoder.
    """
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    if not config.is_encoder_decoder:
        raise ValueError(f"{path}: a {config.model_type} model is no encoder-decoder; the student must be of the T5 family")
    if dropout is not None:
        for name in ("dropout_rate", "dropout", "attention_dropout", "activation_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
    return AutoModelForSeq2SeqLM.from_pretrained(
        path, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
    )


class StudentStep(nn.Module):
    """The student together with its objective, as one module: ``deepspeed.initialize(model=StudentStep(...))``.

    ``forward`` does everything for one micro-batch, so every parameter is used under the engine's hooks, and makes the same module calls
    whatever the micro-batch holds. With W workers and G micro-batches, DeepSpeed divides by both: call
    ``engine.backward(W * G * output.loss)``.
    """

    def __init__(self, student: PreTrainedModel, objective: Objective) -> None:
        super().__init__()
        self.student = student
        self.objective = objective

    def forward(self, batch: MicroBatch, counts: Counts) -> StepOutput:
        """``counts`` are those of the global batch (``objectives.total_counts``), not of ``batch``."""
        hidden = self.student.get_encoder()(input_ids=batch.inputs, attention_mask=batch.input_mask).last_hidden_state
        forward = Forward(self._targets(batch, hidden, batch.labels, batch.label_rows))
        if self.objective.explains:
            nll = None
            if self.objective.chooses_by_loss:
                with torch.no_grad(), evaluating(self.student):
                    nll = self._targets(batch, hidden.detach(), batch.candidates, batch.candidate_rows, batch.skips).mean
            chosen = self.objective.select(nll, batch)
            forward = Forward(forward.label, chosen, *self._chosen(batch, hidden, chosen))
        loss, sums = self.objective.loss(batch, forward, counts)
        return StepOutput(loss, self.objective.vector(sums))

    @torch.no_grad()
    def candidate_losses(self, batch: MicroBatch) -> Tensor:
        """The summed loss of each candidate, ``[candidates]``, in nats: eval mode, without gradient."""
        with evaluating(self.student):
            hidden = self.student.get_encoder()(input_ids=batch.inputs, attention_mask=batch.input_mask).last_hidden_state
            return self._targets(batch, hidden, batch.candidates, batch.candidate_rows, batch.skips).nll

    def _chosen(self, batch: MicroBatch, hidden: Tensor, chosen: Selection) -> tuple[Targets, Targets]:
        """Losses of the chosen candidates with gradient, ``[questions, chosen]`` a side; an absent one is a target without tokens."""
        indices = torch.cat([side.flatten() for side in chosen])
        present = indices >= 0
        rows = indices[present] if present.any() else indices.new_zeros(1)
        targets = self._targets(batch, hidden, batch.candidates[rows], batch.candidate_rows[rows], batch.skips[rows])
        places = present.nonzero()[:, 0]
        sizes = [side.numel() for side in chosen]
        columns = []
        for values in targets:
            if values is None:
                columns.append((None, None))
                continue
            spread = values.new_zeros(len(indices), *values.shape[1:]).index_copy(0, places, values[: len(places)])
            columns.append([part.view(*side.shape, *values.shape[1:]) for part, side in zip(spread.split(sizes), chosen, strict=True)])
        return tuple(Targets(*side) for side in zip(*columns, strict=True))

    def _targets(self, batch: MicroBatch, hidden: Tensor, labels: Tensor, rows: Tensor, skips: Tensor | None = None) -> Targets:
        """One decoder pass: the losses of ``labels`` ``[targets, tokens]`` given the inputs in ``rows`` ``[targets]``; the first ``skips``
        ``[targets]`` tokens of each are read, and not counted."""
        width = int((labels != IGNORED).sum(dim=1).max())
        labels = labels[:, :width]
        logits = self.student(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden[rows]),
            attention_mask=batch.input_mask[rows],
            decoder_input_ids=self.student.prepare_decoder_input_ids_from_labels(labels),
            use_cache=False,
        ).logits
        if skips is not None:
            labels = labels.masked_fill(torch.arange(labels.shape[1], device=labels.device) < skips[:, None], IGNORED)
        peaks = token_peaks(logits, labels) if self.objective.pools else None
        return Targets(*target_nll(logits, labels), peaks)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in eval mode, and afterwards as it was."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
