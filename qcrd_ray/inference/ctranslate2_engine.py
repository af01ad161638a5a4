"""The engine on ctranslate2, a C++ runtime: the T5 family on CPUs, for serving.

The model is converted once, into a cache folder named by the fingerprint of its weights. Greedy
texts are ctranslate2's, in float32. Samples come from :class:`TransformersEngine` around the same
weights, loaded for the first sample. Two faults of ctranslate2 are the reason: it seeds its threads
once and takes no seed with a request, so no sample could be drawn again; and it scales the output
of T5 v1.1 wrongly when transformers 5 has loaded it, which changes samples but no greedy text.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property, partial
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
from qcrd_ray.inference.base import (
    EngineOptions,
    Generated,
    Listener,
    encode,
    hear_all,
    text_so_far,
)
from qcrd_ray.inference.transformers_engine import TransformersEngine, end_tokens
from qcrd_ray.models.names import fingerprint, resolve
from qcrd_ray.models.pretrained import check_student, load_model


class CTranslate2Engine:
    """ctranslate2's translator; see :class:`qcrd_ray.inference.Engine`.

    It never runs code from the model's folder.
    """

    concurrent = False

    def __init__(self, folder: str | Path, options: EngineOptions) -> None:
        self.options = options
        self.load_weights(folder)

    def load_weights(self, folder: str | Path) -> None:
        """Convert ``folder`` where the cache does not hold it, and load it."""
        self.folder = Path(resolve(folder))
        config, self.tokenizer = check_student(folder)
        self.end_tokens = end_tokens(config, generation_config(self.folder, config))
        self.fingerprint = fingerprint(self.folder)
        self.translator = ctranslate2.Translator(
            str(convert_model(self.folder, self.tokenizer, key=self.fingerprint)),
            self.options.device.type,
            compute_type="float32",
            # the share of the machine that this process was given
            intra_threads=torch.get_num_threads(),
        )
        self.__dict__.pop("sampler", None)

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
        """See :class:`qcrd_ray.inference.Engine`. Samples are :class:`TransformersEngine`'s."""
        if temperature > 0:
            return self.sampler.generate(
                prompts,
                n=n,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=seed,
                listeners=listeners,
            )
        assert n >= 1 and max_tokens >= 1, (n, max_tokens)
        if not prompts:
            return []
        results = self.translator.translate_batch(
            [
                self.tokenizer.convert_ids_to_tokens(ids)
                for ids in encode(self.tokenizer, prompts, self.options.max_input_tokens)
            ],
            max_batch_size=self.options.batch_size,
            beam_size=1,
            end_token=self.end_tokens,
            return_end_token=True,
            max_input_length=0,  # `encode` has cut them, and kept their end-of-sequence token
            min_decoding_length=0,
            max_decoding_length=max_tokens,
            **({"callback": self._callback(listeners, n)} if listeners else {}),
        )
        rows: list[list[int]] = []
        for result in results:
            ids = self.tokenizer.convert_tokens_to_ids(result.hypotheses[0])
            assert isinstance(ids, list)
            rows.append(ids)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        # one that neither ended by itself nor reached its length was ended by its listener
        reasons = (
            "stop" if len(row) < max_tokens or row[-1] in self.end_tokens else "length"
            for row in rows
        )
        return [
            [Generated(text.strip(), len(row), reason)] * n
            for text, row, reason in zip(texts, rows, reasons, strict=True)
        ]

    def _callback(
        self, listeners: Sequence[Listener | None], n: int
    ) -> Callable[[ctranslate2.GenerationStepResult], bool]:
        """What ctranslate2 calls for each token; True ends that text alone."""
        written: list[list[int]] = [[] for _ in listeners]

        def hear(token: ctranslate2.GenerationStepResult) -> bool:
            ids, listener = written[token.batch_id], listeners[token.batch_id]
            if listener is None or token.is_last:
                return False
            ids.append(token.token_id)
            return hear_all(listener, range(n), partial(text_so_far, self.tokenizer, ids))

        return hear

    @cached_property
    def sampler(self) -> TransformersEngine:
        """The same weights on transformers, loaded when they are first asked for."""
        if fingerprint(self.folder) != self.fingerprint:
            raise UserError(
                f"{self.folder} has changed since it was loaded: samples and greedy texts would"
                " come from two models. Load it again."
            )
        return TransformersEngine(self.folder, self.options)


class _Converter(TransformersConverter):
    """ctranslate2's converter, given a model that is loaded and checked already.

    It drops the rows that pad the embedding matrix.
    """

    def __init__(
        self, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(str(folder))
        self.model, self.tokenizer = model, tokenizer

    def load_model(self, *_, **__) -> PreTrainedModel:
        model, rows = self.model, len(self.tokenizer)
        # By hand: `resize_token_embeddings` would tie the output matrix of T5 v1.1 to the
        # embeddings, since transformers 5 ties them in every T5.
        for name in ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
            module = model.get_submodule(name)
            assert isinstance(module.weight, torch.Tensor)
            module.weight = torch.nn.Parameter(module.weight[:rows], requires_grad=False)
        model.config.vocab_size = rows
        return model

    def load_tokenizer(self, *_, **__) -> PreTrainedTokenizerBase:
        return self.tokenizer


def generation_config(folder: Path, config: PretrainedConfig) -> GenerationConfig:
    """The generation config that the loaded model would have; reads no weights."""
    stored = (folder / "generation_config.json").is_file()
    return (
        GenerationConfig.from_pretrained(folder)
        if stored
        else GenerationConfig.from_model_config(config)
    )


def convert_model(folder: Path, tokenizer: PreTrainedTokenizerBase, *, key: str) -> Path:
    """Convert ``folder`` unless the cache holds it, and return the folder of the converted model.

    ``key`` is the fingerprint of ``folder``. The folder appears whole or not at all, also when
    several processes convert the same model at once.

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
        model = load_model(folder).float()
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
    """Where converted models are kept: below $QCRD_CACHE, else below the user's cache folder."""
    if root := os.environ.get("QCRD_CACHE"):
        return Path(root) / "ctranslate2"
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user_cache / "qcrd_ray" / "ctranslate2"
