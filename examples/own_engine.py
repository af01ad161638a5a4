"""An engine of your own: a student behind Hugging Face's own `generate`.

docs/extending.md explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from qcrd_ray.inference import Generated


class GenerateEngine:
    """Writes texts with an encoder-decoder in ``folder``, one batch at a time."""

    def __init__(self, folder: str | Path):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        *,
        n: int = 1,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int,
        seed: int = 0,
    ) -> list[list[Generated]]:
        """``n`` texts for each prompt; temperature 0 is greedy."""
        if not prompts:
            return []
        torch.manual_seed(seed)
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        inputs.pop("token_type_ids", None)  # a plain fast tokenizer gives them; T5 takes none
        options = {"do_sample": False}
        if temperature:
            options = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        written = self.model.generate(
            **inputs, **options, num_return_sequences=n, max_new_tokens=max_tokens
        )
        texts = [self._read(row) for row in written[:, 1:]]  # without the start token
        return [texts[i * n : (i + 1) * n] for i in range(len(prompts))]

    def load_weights(self, folder: str | Path) -> None:
        """Take the weights of another snapshot of the same student."""
        weights = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
        self.model.load_state_dict(weights)

    def _read(self, ids: torch.Tensor) -> Generated:
        ends = (ids == self.tokenizer.eos_token_id).nonzero()
        tokens = int(ends[0]) + 1 if len(ends) else len(ids)
        text = self.tokenizer.decode(ids[:tokens], skip_special_tokens=True).strip()
        return Generated(text, tokens, "stop" if len(ends) else "length")
