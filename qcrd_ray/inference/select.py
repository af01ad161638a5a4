"""Select and load the engine that runs a model."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from qcrd_ray.errors import UserError
from qcrd_ray.inference.base import Engine, EngineOptions
from qcrd_ray.inference.transformers_engine import TransformersEngine
from qcrd_ray.models.names import resolve
from qcrd_ray.models.pretrained import custom_code_files, pick_device, read_config

EngineName = Literal["transformers", "ctranslate2", "vllm"]
# the encoder-decoders for which ctranslate2 is known to generate the same texts
CONVERTIBLE = ("t5", "mt5")
# what ctranslate2 4.8.5 opens when it first multiplies on a GPU, far from where it was chosen
CUBLAS = "libcublas.so.12"


def choose_engine(
    folder: str | Path,
    engine: EngineName | Literal["auto"] = "auto",
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    key: str = "serve.engine",
) -> EngineName:
    """Resolve the recipe's ``key`` for the model in ``folder``, from its config alone.

    `auto` is vllm for decoder-only models where it is installed, else transformers. For the T5
    family on a CPU it is ctranslate2, which generates the same greedy texts faster than our loop on
    transformers. On one thread, in batches of 1, 8 and 32, it is 11, 6.5 and 3.9 times as fast with
    the shipped student of 0.8 million weights, and 2.0, 1.5 and 1.1 times with one of T5-small's
    shape (44 million). On a GPU `auto` is transformers: ctranslate2 has not been measured there.

    Raises:
        UserError: this engine cannot run this model, or is not installed, or its GPU library is
            missing.
    """
    config = read_config(folder, trust_remote_code=trust_remote_code)
    runs: dict[EngineName, bool] = {
        # it converts a folder, and knows the library's own T5 alone, not one with code of its own
        "ctranslate2": config.model_type in CONVERTIBLE
        and Path(resolve(folder)).is_dir()
        and not custom_code_files(config),
        "transformers": True,
        "vllm": not config.is_encoder_decoder,
    }
    if engine == "auto":
        if runs["vllm"] and find_spec("vllm"):
            return "vllm"
        on_cpu = pick_device(device).type == "cpu"
        if runs["ctranslate2"] and on_cpu and find_spec("ctranslate2"):
            return "ctranslate2"
        return "transformers"
    if not runs[engine]:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "a decoder-only model"
        fitting = " or ".join(name for name, fits in runs.items() if fits)
        raise UserError(
            f"{key}: {engine} cannot run {folder}, which is {kind} ({config.model_type});"
            f" use auto, or {fitting}"
        )
    if not find_spec(engine):
        raise UserError(
            f"{key}: the package {engine} is not installed; use auto, or install what the"
            " lock file names"
        )
    if engine == "ctranslate2" and pick_device(device).type == "cuda" and not _loads(CUBLAS):
        raise UserError(
            f"{key}: ctranslate2 needs {CUBLAS} on a GPU, and torch brought another CUDA's;"
            " use auto or transformers, or install nvidia-cublas-cu12 and put its lib folder on"
            " LD_LIBRARY_PATH"
        )
    return engine


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def vllm_share(gpus: float) -> float | None:
    """The share of a GPU's memory for vLLM in a process that has ``gpus``; None: it has none.

    vLLM's own 0.92 is of the whole card, whatever part of it the process was given.
    """
    return 0.9 * min(1.0, gpus) if gpus else None


def load_engine(
    folder: str | Path,
    *,
    engine: EngineName | Literal["auto"] = "transformers",
    device: str = "auto",
    batch_size: int = 64,
    max_input_tokens: int | None = None,
    trust_remote_code: bool = False,
    gpu_memory_utilization: float | None = None,
) -> Engine:
    """Load the model in ``folder`` (or hub id, or `demo`) into an engine.

    Raises:
        UserError: it is not a usable model, or ``engine`` cannot run it.
    """
    name = choose_engine(folder, engine, device=device, trust_remote_code=trust_remote_code)
    options = EngineOptions(
        device=pick_device(device),
        batch_size=batch_size,
        max_input_tokens=max_input_tokens,
        trust_remote_code=trust_remote_code,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    # a process imports the one that it runs: vLLM takes seconds, and either may not be installed
    if name == "vllm":
        from qcrd_ray.inference.vllm_engine import VLLMEngine

        return VLLMEngine(folder, options)
    if name == "ctranslate2":
        from qcrd_ray.inference.ctranslate2_engine import CTranslate2Engine

        return CTranslate2Engine(folder, options)
    return TransformersEngine(folder, options)
