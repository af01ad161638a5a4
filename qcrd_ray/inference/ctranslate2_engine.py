"""The T5 family on ctranslate2, a C++ runtime: what serves a student on CPUs.

The model is converted once, into a cache folder named by the fingerprint of its weights. Greedy
texts are ctranslate2's, in float32. Samples are drawn by :class:`TransformersEngine` around the
same weights, loaded when the first sample is asked for: ctranslate2 seeds its threads once and
takes no seed of a request, so what it drew for a question could not be drawn again; and it scales
the output of T5 v1.1 wrongly when transformers 5 has loaded it, which no greedy text shows and
every sample would.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import ctranslate2
import torch
from ctranslate2.converters import TransformersConverter
from transformers import (
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from qcrd_ray.errors import UserError
from qcrd_ray.inference.base import Generated, encode
from qcrd_ray.inference.transformers_engine import TransformersEngine, end_tokens
from qcrd_ray.models.pretrained import check_student, fingerprint, load_model, resolve


class CTranslate2Engine:
    """See :class:`qcrd_ray.inference.Engine`. ``batch_size`` counts texts that are decoded
    together.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: torch.device,
        batch_size: int = 64,
        max_input_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.device, self.batch_size, self.max_input_tokens, self.trust_remote_code = (
            device,
            batch_size,
            max_input_tokens,
            trust_remote_code,
        )
        self.load_weights(folder)

    def load_weights(self, folder: str | Path) -> None:
        """Convert ``folder`` where the cache does not hold it, and load it."""
        self.folder = Path(resolve(folder))
        config, self.tokenizer = check_student(folder, trust_remote_code=self.trust_remote_code)
        self.ends = end_tokens(config, generation_config(self.folder, config))
        self.weights = fingerprint(self.folder)
        self.translator = ctranslate2.Translator(
            str(
                convert_model(
                    self.folder,
                    self.tokenizer,
                    key=self.weights,
                    trust_remote_code=self.trust_remote_code,
                )
            ),
            self.device.type,
            compute_type="float32",
            # the share of the machine that this process was given
            intra_threads=torch.get_num_threads(),
        )
        self.__dict__.pop("_sampler", None)

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
        """See :class:`qcrd_ray.inference.Engine`. Samples are exactly those of
        :class:`TransformersEngine`.
        """
        if temperature > 0:
            return self._sampler.generate(
                prompts, n=n, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed
            )
        assert n >= 1 and max_tokens >= 1, (n, max_tokens)
        if not prompts:
            return []
        results = self.translator.translate_batch(
            [
                self.tokenizer.convert_ids_to_tokens(ids)
                for ids in encode(self.tokenizer, prompts, self.max_input_tokens)
            ],
            max_batch_size=self.batch_size,
            beam_size=1,
            end_token=self.ends,
            return_end_token=True,
            max_input_length=0,  # `encode` has cut them, and left them their end
            min_decoding_length=0,
            max_decoding_length=max_tokens,
        )
        rows = [self.tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        reasons = ("stop" if row and row[-1] in self.ends else "length" for row in rows)
        return [
            [Generated(text.strip(), len(row), reason)] * n
            for text, row, reason in zip(texts, rows, reasons, strict=True)
        ]

    @cached_property
    def _sampler(self) -> TransformersEngine:
        if fingerprint(self.folder) != self.weights:
            raise UserError(
                f"{self.folder} has changed since it was loaded: samples and greedy texts would be"
                " two models'. Load it again."
            )
        model = load_model(self.folder, trust_remote_code=self.trust_remote_code).to(self.device)
        return TransformersEngine(
            model,
            self.tokenizer,
            batch_size=self.batch_size,
            max_input_tokens=self.max_input_tokens,
        )


class _Converter(TransformersConverter):
    """ctranslate2's converter, given a model that was loaded and checked by us, without the rows
    that pad its embedding matrix.
    """

    def __init__(
        self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(str(folder))
        self.model, self.tokenizer = model, tokenizer

    def load_model(self, *_, **__) -> PreTrainedModel:
        model, rows = self.model, len(self.tokenizer)
        # By hand: `resize_token_embeddings` would tie the output matrix of T5 v1.1 to the
        # embeddings, as transformers 5 has them all tied.
        for module in (
            model.shared,
            model.encoder.embed_tokens,
            model.decoder.embed_tokens,
            model.lm_head,
        ):
            module.weight = torch.nn.Parameter(module.weight[:rows], requires_grad=False)
        model.config.vocab_size = rows
        return model

    def load_tokenizer(self, *_, **__) -> PreTrainedTokenizerBase:
        return self.tokenizer


def generation_config(folder: Path, config: PretrainedConfig) -> GenerationConfig:
    """What the model's own `generate` would be told, without loading the model."""
    stored = (folder / "generation_config.json").is_file()
    return (
        GenerationConfig.from_pretrained(folder)
        if stored
        else GenerationConfig.from_model_config(config)
    )


def convert_model(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, key: str, trust_remote_code: bool = False
) -> Path:
    """The folder of the converted model, named by the fingerprint ``key`` of ``folder``.

    It is made if need be, whole or not at all, also when several processes make it at once.

    Raises:
        UserError: the cache folder cannot be written.
    """
    target = cache_folder() / f"{key[:32]}-{ctranslate2.__version__}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writing = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"serve.engine: ctranslate2 keeps converted models in {target.parent}, which cannot be"
            f" written ({error.strerror}); set QCRD_CACHE to a folder that can, or serve.engine to"
            " transformers"
        ) from error
    try:
        model = load_model(folder, trust_remote_code=trust_remote_code).float()
        _Converter(folder, model, tokenizer).convert(str(writing / "model"), quantization="float32")
        if not target.is_dir():
            (writing / "model").rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster, with the same model
            raise
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return target


def cache_folder() -> Path:
    """Where converted models are kept: the folder that QCRD_CACHE names, else one of ours in the
    user's cache.
    """
    own = os.environ.get("QCRD_CACHE")
    return (
        Path(own)
        if own
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qcrd_ray"
    ) / "ctranslate2"
