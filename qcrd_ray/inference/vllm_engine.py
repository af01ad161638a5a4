"""The engine on vLLM, in this process: decoder-only models, for serving.

Texts are batched continuously: what one thread asks for is written along with what others do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qcrd_ray.inference.base import EngineOptions, Generated, encode
from qcrd_ray.inference.continuous_batching import ContinuousBatching
from qcrd_ray.models.pretrained import read_config, read_tokenizer, resolve

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput


class VLLMEngine:
    """vLLM's offline engine; see :class:`qcrd_ray.inference.Engine`.

    A sample has a seed of its own, made from (seed, prompt, number), so equal prompts get equal
    samples. But vLLM on a CPU sums in another order in another batch, and a sample may then change
    at a token that was nearly as likely. So, unlike :class:`TransformersEngine`, it repeats a text
    only for the same batches of requests.
    """

    concurrent = True

    def __init__(self, folder: str | Path, options: EngineOptions) -> None:
        self.options = options
        name, trust = resolve(folder), options.trust_remote_code
        config = read_config(name, trust_remote_code=trust)
        self.tokenizer = read_tokenizer(name, config, trust_remote_code=trust)
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        # the engine lives and dies with this process
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        on_cpu = options.device.type == "cpu"
        if on_cpu:
            # As in a served teacher: vLLM's own binding of threads to cores halves its speed where
            # others use the machine too.
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # vLLM takes FlashInfer's sampler by the GPU's capability alone, which compiles itself when
        # it first runs and fails without nvcc (vllm-project/vllm#49497).
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        from vllm import LLM

        memory = {}
        if not on_cpu and options.gpu_memory_utilization is not None:
            memory["gpu_memory_utilization"] = options.gpu_memory_utilization
        self.llm = LLM(
            name,
            trust_remote_code=trust,
            # By itself vLLM would take float32 weights as bfloat16, and its texts would not be
            # those that were measured. Its type names strings alone, and it takes torch's too.
            dtype=config.dtype or "auto",  # pyright: ignore[reportArgumentType]
            max_num_seqs=options.batch_size,
            max_model_len=-1,  # as long as the model and the memory allow
            enforce_eager=on_cpu,  # compiling costs 25 s of a start
            disable_log_stats=True,
            **memory,
        )
        self._batching = ContinuousBatching(self.llm.llm_engine)

    def load_weights(self, folder: str | Path) -> None:
        """Read the weights of ``folder`` into the running engine, and clear its prefix cache."""

        def reload() -> None:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": resolve(folder)})
            self.llm.reset_prefix_cache()

        self._batching.call(reload)

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
        """See :class:`qcrd_ray.inference.Engine`.

        A text that reaches the model's maximum length ends there with `length`.
        """
        from vllm import SamplingParams, TokensPrompt

        assert n >= 1 and temperature >= 0 and 0 < top_p <= 1 and max_tokens >= 1, (
            n,
            temperature,
            top_p,
            max_tokens,
        )
        if not prompts:
            return []
        # vLLM refuses several greedy texts, which would be one anyway
        drawn = n if temperature > 0 else 1
        longest = self.llm.model_config.max_model_len - 1
        limit = min(self.options.max_input_tokens or longest, longest)
        texts = [
            TokensPrompt(prompt_token_ids=ids) for ids in encode(self.tokenizer, prompts, limit)
        ]
        params = [
            SamplingParams(
                n=drawn,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=_seed(seed, prompt),
            )
            for prompt in prompts
        ]
        waiting = [
            self._batching.submit(text, each) for text, each in zip(texts, params, strict=True)
        ]
        return [
            [_generated(text) for text in done.result().outputs] * (n // drawn) for done in waiting
        ]


def _generated(text: CompletionOutput) -> Generated:
    assert text.finish_reason is not None, "vLLM returned a text that is not finished"
    return Generated(text.text.strip(), len(text.token_ids), text.finish_reason)


def _seed(seed: int, prompt: str) -> int:
    """The seed of a prompt's first sample; vLLM adds 1, 2, ... for the next ones."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="surrogatepass"), digest_size=4).digest(),
        "big",
    )
