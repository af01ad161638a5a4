"""How likely a student finds given texts: the loss of each token, by teacher forcing.

One forward pass reads all texts of a prompt, and the prompt once (:mod:`qcrd_ray.method.prefix`).
It costs a fraction of sampling them, which reads the same tokens one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from qcrd_ray.inference.base import UNLIMITED, EngineOptions, encode
from qcrd_ray.method.collation import pad_rows
from qcrd_ray.method.losses import IGNORED
from qcrd_ray.method.prefix import encode_inputs
from qcrd_ray.method.student import evaluating
from qcrd_ray.method.tokenization import pad_id, tokenize
from qcrd_ray.models.pretrained import load_student


class Likelihood:
    """A student that reads texts and writes none; an engine's model and tokenizer will do."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: EngineOptions
    ) -> None:
        """``options.batch_size`` counts the texts that are read together."""
        self.model, self.tokenizer, self.options = model, tokenizer, options

    @classmethod
    def load(cls, folder: str | Path, options: EngineOptions) -> Likelihood:
        """Load and check the student in ``folder`` (or hub id, or `demo`). Raises UserError."""
        model, tokenizer = load_student(folder, trust_remote_code=options.trust_remote_code)
        # transformers wraps `to` in a way that hides its signature from type checkers
        return cls(model.to(options.device), tokenizer, options)  # pyright: ignore[reportArgumentType]

    def token_losses(
        self, prompts: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[list[float]]]:
        """The loss in nats of each token of each text after its prompt, the end token included.

        A text of nothing but white space has no token. ``texts[i]`` are those of ``prompts[i]``.
        """
        encoded = encode(self.tokenizer, prompts, self.options.max_input_tokens)
        rows = iter(
            tokenize(
                self.tokenizer, [text for each in texts for text in each], max_tokens=UNLIMITED
            ).rows
        )
        return self.losses_after(encoded, [[next(rows) for _ in each] for each in texts])

    @torch.no_grad()
    def losses_after(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[list[float]]]:
        """As :meth:`token_losses`, of token ids. An empty target has no losses."""
        losses: list[list[list[float]]] = [[[] for _ in each] for each in targets]
        places = [(i, j) for i, each in enumerate(targets) for j in range(len(each))]
        rows = [targets[i][j] for i, j in places]
        # a batch holds whole prompts, and pads to its longest
        by_prompt: dict[int, list[int]] = {}
        for at, (i, _) in enumerate(places):
            if rows[at]:
                by_prompt.setdefault(i, []).append(at)
        order = sorted(by_prompt, key=lambda i: -max(len(rows[at]) for at in by_prompt[i]))
        batch: list[int] = []
        with evaluating(self.model):
            for place, i in enumerate(order):
                batch.append(i)
                size = sum(len(by_prompt[each]) for each in batch)
                if size < self.options.batch_size and place + 1 < len(order):
                    continue
                for at, values in self._batch(batch, prompts, by_prompt, rows):
                    prompt, text = places[at]
                    losses[prompt][text] = values
                batch = []
        return losses

    def _batch(
        self,
        batch: Sequence[int],
        encoded: Sequence[Sequence[int]],
        by_prompt: dict[int, list[int]],
        rows: Sequence[Sequence[int]],
    ) -> list[tuple[int, list[float]]]:
        device = self.model.device
        inputs, mask = pad_rows([tuple(encoded[i]) for i in batch], pad_id(self.tokenizer))
        targets = [at for i in batch for at in by_prompt[i]]
        labels, _ = pad_rows([tuple(rows[at]) for at in targets], IGNORED)
        labels = labels.to(device)
        row_of = torch.tensor(
            [row for row, i in enumerate(batch) for _ in by_prompt[i]], device=device
        )
        states = encode_inputs(self.model, inputs.to(device), mask.to(device))
        losses = states.losses(labels, row_of).tolist()
        return [(at, values[: len(rows[at])]) for at, values in zip(targets, losses, strict=True)]
