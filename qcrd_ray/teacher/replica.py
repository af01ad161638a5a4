"""One replica of a served teacher: Ray Serve's LLM server (vLLM) behind one method.

Runs in a Serve replica. vLLM is imported there only: on the driver the import would add ten seconds
to the start.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Sequence
from typing import Any, TypedDict

from qcrd_ray.cluster.ray_internals import run_cpu_engine_in_process, skip_llm_telemetry
from qcrd_ray.tasks.base import Message
from qcrd_ray.teacher.base import Prompt, TeacherError, TeacherRefusal
from qcrd_ray.teacher.engine_process import begin_imports, fork_engine

MODEL_ID = "teacher"

log = logging.getLogger("ray.serve")


# (text, finish reason, tokens, thinking): plain values, which are sent faster than vLLM's own types
Sample = tuple[str, str | None, int, str]


class PromptSamples(TypedDict):
    """The samples of one prompt, and the prompt's length in tokens."""

    prompt_tokens: int
    samples: list[Sample]


class TeacherReplica:
    """Hosts one engine; ``llm_config`` holds the arguments of `ray.serve.llm.LLMConfig`."""

    async def __init__(self, llm_config: dict[str, Any]):
        on_cpu = llm_config["accelerator_config"]["kind"] == "cpu"
        if on_cpu:
            begin_imports()
        from ray.serve.llm import LLMConfig, LLMServer

        run_cpu_engine_in_process()
        skip_llm_telemetry()
        if on_cpu:
            fork_engine()
        # vLLM cannot rewind a CPU's generator where it reads a prompt in parts, and its engine dies
        # of that (0.29.0, _bookkeeping_sync of gpu_model_runner.py)
        self._takes_seeds = not on_cpu
        self._server = LLMServer.sync_init(LLMConfig(**llm_config))
        await self._server.start()

    async def ask(self, prompts: Sequence[Prompt], sampling: dict[str, Any]) -> list[PromptSamples]:
        """Generate n samples for each prompt, in the order of the prompts.

        The prompts are all plain texts or all chats. ``sampling`` holds n, max_tokens, stop, and
        every number that the model's `generation_config.json` would fill in if it were missing
        (`get_diff_sampling_param` of vLLM): temperature, top_p, top_k, min_p, repetition_penalty.
        A seed is optional, and left out on CPUs; sample i of a prompt then has the seed + i.

        Raises:
            TeacherRefusal: the engine says that the request itself is at fault.
            TeacherError: the engine failed; a dead one ends this process.
        """
        if not self._takes_seeds:
            sampling = {name: value for name, value in sampling.items() if name != "seed"}
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if texts:
            assert len(texts) == len(prompts)
            return await self._complete(texts, sampling)
        chats = [prompt for prompt in prompts if not isinstance(prompt, str)]
        return list(await asyncio.gather(*(self._chat(messages, sampling) for messages in chats)))

    async def check_health(self) -> None:
        """Called by Serve. End this process if the engine is dead.

        A dead engine in a living replica would answer every request with an error for ever
        (ray#59522). Serve replaces a replica after three failed checks, and one that ends at once.
        """
        try:
            await self._server.check_health()
        except Exception:
            log.exception("the engine is dead: this replica ends, so that Serve replaces it")
            os._exit(1)

    async def _complete(
        self, prompts: Sequence[str], sampling: dict[str, Any]
    ) -> list[PromptSamples]:
        from ray.serve.llm.openai_api_models import CompletionRequest

        request = CompletionRequest(
            model=MODEL_ID, prompt=list(prompts), return_token_ids=True, **sampling
        )
        response = await self._only(self._server.completions(request))
        # prompt by prompt, the samples of each together
        choices = sorted(response.choices, key=lambda choice: choice.index)
        n = sampling["n"]
        return [
            {
                "prompt_tokens": len(choices[start].prompt_token_ids or ()),
                "samples": [
                    (choice.text, choice.finish_reason, len(choice.token_ids or ()), "")
                    for choice in choices[start : start + n]
                ],
            }
            for start in range(0, len(choices), n)
        ]

    async def _chat(self, messages: list[Message], sampling: dict[str, Any]) -> PromptSamples:
        from ray.serve.llm.openai_api_models import ChatCompletionRequest

        request = ChatCompletionRequest(
            model=MODEL_ID, messages=messages, return_token_ids=True, **sampling
        )
        response = await self._only(self._server.chat(request))
        samples = [
            # vLLM's reasoning parser, where engine_kwargs name one, takes the thinking out itself.
            (
                choice.message.content or "",
                choice.finish_reason,
                len(choice.token_ids or ()),
                choice.message.reasoning or "",
            )
            for choice in response.choices
        ]
        return {"prompt_tokens": response.usage.prompt_tokens, "samples": samples}

    async def _only(self, pending: Awaitable[Any]) -> Any:
        """The one response of a request that does not stream; an error response is raised."""
        try:
            response = await anext(aiter(await pending))
        except Exception as error:
            await self.check_health()
            raise TeacherError(f"{type(error).__name__}: {error}") from error
        error = getattr(response, "error", None)
        if error is None:
            return response
        if 400 <= error.code < 500:
            raise TeacherRefusal(error.message)
        await self.check_health()
        raise TeacherError(error.message)
