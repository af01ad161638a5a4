"""The discriminator, equation (1): s = D(question, rationale) in [0, 1].

An encoder, max pooling over its tokens and two linear layers, as in the paper. A decoder-only model serves as an encoder too: its last
token has seen all others. Saved as a folder of its own: ``config.json`` and
``model.safetensors``, from which :meth:`Discriminator.load` rebuilds it without a recipe.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from qcrd_ray.method.collation import pad_rows
from qcrd_ray.method.examples import Tokens
from qcrd_ray.method.student import evaluating


class Discriminator(nn.Module):
    """``forward`` gives logits, so that a loss may be taken on either side of the sigmoid; :meth:`score` gives s.

    ``config`` is the Hugging Face configuration that ``encoder`` was built from: its own, or that of an encoder-decoder whose encoder it
    is.
    """

    def __init__(self, encoder: nn.Module, config: PretrainedConfig, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.inner = nn.Linear(encoder.config.hidden_size, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits ``[pairs]`` of ``tokens`` and ``mask`` ``[pairs, tokens]``; padding never wins the maximum."""
        states = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        pooled = states.masked_fill(mask[:, :, None] == 0, torch.finfo(states.dtype).min).amax(dim=1)
        return self.outer(self.dropout(torch.relu(self.inner(self.dropout(pooled))))).squeeze(1).float()

    def score(self, pairs: Sequence[Tokens], *, batch_size: int = 64) -> list[float]:
        """s of each tokenised pair, in their order: eval mode, no gradient, batches of like length."""
        device = self.outer.weight.device
        scores = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i]))
        pad = self.config.pad_token_id or 0
        with torch.no_grad(), evaluating(self):
            for start in range(0, len(order), batch_size):
                chunk = order[start : start + batch_size]
                tokens, mask = pad_rows([pairs[i] for i in chunk], pad)
                for i, score in zip(chunk, self(tokens.to(device), mask.to(device)).sigmoid().tolist(), strict=True):
                    scores[i] = score
        return scores

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, hidden: int = 256, dropout: float = 0.1, trust_remote_code: bool = False
    ) -> Discriminator:
        """A new one on a pretrained encoder (hub id or folder); the linear layers are random."""
        model = AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code)
        return cls.from_model(model, hidden=hidden, dropout=dropout)

    @classmethod
    def from_model(cls, model: PreTrainedModel, *, hidden: int = 256, dropout: float = 0.1) -> Discriminator:
        """A new one on the encoder of ``model``, which it takes over (an encoder-decoder's decoder is dropped)."""
        return cls(_encoder(model), model.config, hidden=hidden, dropout=dropout)

    def save(self, folder: str | Path, **facts: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``. ``facts`` (AUC, max_tokens ...) are kept in the configuration."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        encoder = {name: value for name, value in self.config.to_dict().items() if name != "_name_or_path"}  # a path of this machine
        settings = {"hidden": self.inner.out_features, "dropout": self.dropout.p, "encoder": encoder, **facts}
        (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Discriminator:
        """What :meth:`save` wrote, in eval mode. FileNotFoundError: the folder holds none."""
        settings = json.loads((Path(folder) / "config.json").read_text())
        encoder = dict(settings["encoder"])
        config = AutoConfig.for_model(encoder.pop("model_type"), **encoder)
        discriminator = cls(_encoder(AutoModel.from_config(config)), config, hidden=settings["hidden"], dropout=settings["dropout"])
        discriminator.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return discriminator.to(device).eval()


def _encoder(model: PreTrainedModel) -> nn.Module:
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    model.config.use_cache = False  # a decoder-only model would keep keys and values for texts that nobody writes
    return model
