"""The engine on vLLM, in this process: decoder-only models, for serving.

Texts are batched continuously: what one thread asks for is written along with what others do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qcrd_ray.inference.base import EngineOptions, Generated, Listener, encode, hear_all
from qcrd_ray.inference.continuous_batching import ContinuousBatching
from qcrd_ray.models.names import resolve
from qcrd_ray.models.pretrained import read_config, read_tokenizer

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput, RequestOutput


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
            # its sampler is compiled even with enforce_eager, while the first request waits
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
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
        listeners: Sequence[Listener | None] | None = None,
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
        # several greedy texts would be one anyway
        drawn, copies = (n, 1) if temperature > 0 else (1, n)
        longest = self.llm.model_config.max_model_len - 1
        limit = min(self.options.max_input_tokens or longest, longest)
        encoded = encode(self.tokenizer, prompts, limit)
        heard = listeners or [None] * len(prompts)
        # One request for each sample, as vLLM itself makes of one with n: so each can end alone.
        waiting = [
            [
                self._batching.submit(
                    TokensPrompt(prompt_token_ids=ids),
                    SamplingParams(
                        temperature=temperature,
                        top_p=top_p,
                        max_tokens=max_tokens,
                        seed=_seed(seed, prompt) + number,
                    ),
                    _hear(listener, range(number, number + copies)) if listener else None,
                )
                for number in range(drawn)
            ]
            for prompt, ids, listener in zip(prompts, encoded, heard, strict=True)
        ]
        return [
            [_generated(done.result().outputs[0]) for done in samples] * copies
            for samples in waiting
        ]


def _hear(listener: Listener, samples: range) -> Callable[[RequestOutput], bool]:
    """What tells ``listener`` of a request's output, whose copies ``samples`` are."""
    return lambda output: hear_all(listener, samples, output.outputs[0].text.strip)


def _generated(text: CompletionOutput) -> Generated:
    # a listener ended what vLLM did not
    return Generated(text.text.strip(), len(text.token_ids), text.finish_reason or "stop")


def _seed(seed: int, prompt: str) -> int:
    """The seed of a prompt's first sample; the next ones have this plus 1, 2, ..."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="surrogatepass"), digest_size=4).digest(),
        "big",
    )
