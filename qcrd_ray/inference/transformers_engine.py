"""The engine on transformers, for both kinds of student: negatives, validation, evaluation.

It has its own decoding loop instead of ``generate``. A sample depends on (weights, seed, prompt,
sample number) alone: not on its neighbours, the batch size or the global random state, which the
loop leaves untouched. It is also 1.3 to 1.9 times as fast on small encoder-decoders: rows that have
ended leave the batch, and a prompt is read once for its n samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig

from qcrd_ray.inference.base import EngineOptions, Generated, Listener, encode, text_so_far
from qcrd_ray.inference.decoding import start_decoding
from qcrd_ray.method.collation import pad_rows
from qcrd_ray.models.pretrained import load_model, load_student

# ended rows leave the batch once no more than this share of it is unfinished
KEEP_BELOW = 0.8
# Steps between two looks at which rows have ended. A look waits for a GPU, which otherwise has work
# queued; a row that has ended is decoded in vain until it is seen.
LOOK_EVERY = 8


class TransformersEngine:
    """Greedy decoding and sampling for an encoder-decoder or a decoder-only model.

    Prompts are batched by length, the longest first.
    """

    concurrent = False

    def __init__(self, folder: str | Path, options: EngineOptions) -> None:
        """Load and check the student in ``folder`` (or hub id, or `demo`). Raises UserError."""
        self.options = options
        model, self.tokenizer = load_student(folder, trust_remote_code=options.trust_remote_code)
        # transformers wraps `to` in a way that hides its signature from type checkers
        self.model = model.to(options.device)  # pyright: ignore[reportArgumentType]
        self.end_tokens = torch.tensor(end_tokens(model.config, model.generation_config))
        self.look_every = 1 if options.device.type == "cpu" else LOOK_EVERY

    def load_weights(self, folder: str | Path) -> None:
        """Copy the weights of ``folder`` into the model; device, precision and tokenizer stay."""
        source = load_model(folder, trust_remote_code=self.options.trust_remote_code)
        self.model.load_state_dict(source.state_dict())

    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int,
        seed: int = 0,
        listeners: Sequence[Listener | None] | None = None,
    ) -> list[list[Generated]]:
        """See :class:`qcrd_ray.inference.Engine`.

        Two equal prompts get equal samples; the n samples of one prompt differ.
        """
        assert n >= 1 and temperature >= 0 and 0 < top_p <= 1 and max_tokens >= 1, (
            n,
            temperature,
            top_p,
            max_tokens,
        )
        if not prompts:
            return []
        encoded = encode(self.tokenizer, prompts, self.options.max_input_tokens)
        longest_first = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
        per_batch = max(1, self.options.batch_size // n)
        results: list[list[Generated]] = [[] for _ in prompts]
        was_training = self.model.training
        self.model.eval()
        try:
            for first in range(0, len(prompts), per_batch):
                batch = longest_first[first : first + per_batch]
                noise = None
                if temperature > 0:
                    noise = np.stack(
                        [
                            _uniforms(seed, prompts[i], number, max_tokens)
                            for i in batch
                            for number in range(n)
                        ]
                    )
                texts = self._decode(
                    [encoded[i] for i in batch],
                    n,
                    temperature,
                    top_p,
                    max_tokens,
                    noise,
                    [listeners[i] for i in batch for _ in range(n)] if listeners else [],
                )
                for row, i in enumerate(batch):
                    results[i] = texts[row * n : (row + 1) * n]
        finally:
            self.model.train(was_training)
        return results

    @torch.no_grad()  # not inference_mode: the tensors of a module in training must stay usable
    def _decode(
        self,
        inputs: list[list[int]],
        n: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        noise: np.ndarray | None,
        listeners: Sequence[Listener | None],
    ) -> list[Generated]:
        """Decode n texts for each input.

        ``noise`` ``[inputs * n, max_tokens]`` holds uniform numbers in [0, 1); None: greedy.
        ``listeners`` are those of the rows, or empty.
        """
        device = self.model.device
        pad = self.tokenizer.pad_token_id or 0
        assert isinstance(pad, int)
        padded, mask = (tensor.to(device) for tensor in pad_rows(inputs, pad))
        state = start_decoding(self.model, padded, mask, n=n)
        # [rows] of the output that are unfinished
        alive = torch.arange(len(inputs) * n, device=device)
        tokens = torch.zeros(len(alive), max_tokens, dtype=torch.long, device=device)
        lengths = torch.full((len(alive),), max_tokens, device=device)
        stopped = torch.zeros(len(alive), dtype=torch.bool, device=device)
        uniforms = None if noise is None else torch.from_numpy(noise).to(device)
        end_tokens, token = self.end_tokens.to(device), state.start
        for step in range(max_tokens):
            # [rows, vocabulary], without the rows that pad the embedding matrix
            logits = state.step(token)[:, : len(self.tokenizer)].float()
            if uniforms is None:
                token = logits.argmax(-1, keepdim=True)
            else:
                token = sample(logits / temperature, top_p=top_p, uniforms=uniforms[alive, step])
            tokens[alive, step] = token[:, 0]
            ended = torch.isin(token[:, 0], end_tokens) & ~stopped[alive]
            lengths[alive] = torch.where(ended, step + 1, lengths[alive])
            stopped[alive] |= ended
            if (step + 1) % self.look_every:
                continue
            if listeners:
                ends = self._heard(listeners, n, tokens[:, : step + 1], alive, stopped)
                stopped[ends], lengths[ends] = True, step + 1
            keep = (~stopped[alive]).nonzero()[:, 0]
            if not len(keep):
                break
            # dropping ended rows copies the cache: wait until it pays
            if len(keep) <= KEEP_BELOW * len(alive):
                alive, token = alive[keep], token[keep]
                state.keep(keep)
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        reasons = ("stop" if stop else "length" for stop in stopped.tolist())
        return [
            Generated(text.strip(), len(row), reason)
            for text, row, reason in zip(texts, rows, reasons, strict=True)
        ]

    def _heard(
        self,
        listeners: Sequence[Listener | None],
        n: int,
        tokens: Tensor,
        alive: Tensor,
        stopped: Tensor,
    ) -> Tensor:
        """Tell the listeners how far ``tokens`` ``[rows, tokens so far]`` are.

        Returns the rows ``[ended]`` that shall end here.
        """
        ends: list[int] = []
        for row in alive[~stopped[alive]].tolist():
            listener = listeners[row]
            # only a listener that asks for the text has it decoded
            if listener is not None and listener.hear(
                row % n, lambda row=row: text_so_far(self.tokenizer, tokens[row].tolist())
            ):
                ends.append(row)
        return torch.tensor(ends, dtype=torch.long, device=alive.device)


def end_tokens(config: PretrainedConfig, generation: GenerationConfig | None) -> list[int]:
    """The tokens that end a text, as the generation config or else the model's config has them."""
    ends = generation.eos_token_id if generation is not None else None
    ends = ends if ends is not None else config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def sample(logits: Tensor, *, top_p: float, uniforms: Tensor) -> Tensor:
    """Draw one token a row by inverting the distribution function.

    ``logits`` ``[rows, vocabulary]`` and ``uniforms`` ``[rows]`` in [0, 1) give ``[rows, 1]``.
    ``top_p`` < 1 keeps the smallest set of most likely tokens whose probabilities reach it (nucleus
    sampling, Holtzman et al. 2020).
    """
    probabilities = logits.double().softmax(-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
    cumulative = probabilities.cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)
    return drawn.clamp_(max=logits.shape[-1] - 1)


def _uniforms(seed: int, prompt: str, number: int, count: int) -> np.ndarray:
    """The random numbers ``[count]`` of sample ``number``: a function of the arguments alone."""
    digest = hashlib.blake2b(
        f"{seed}\0{number}\0{prompt}".encode(errors="surrogatepass"), digest_size=16
    ).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big"))).random(count)
