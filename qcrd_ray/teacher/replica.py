"""One replica of a served teacher: Ray Serve's LLM server (vLLM) behind one call that answers
several prompts with K samples each.

Runs in a Serve replica. vLLM is imported there only: on the driver it would cost ten seconds of a
start that waits for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from qcrd_ray.cluster.ray_internals import run_cpu_engine_in_process
from qcrd_ray.teacher.base import Prompt, TeacherError, TeacherRefusal

MODEL_ID = "teacher"

log = logging.getLogger("ray.serve")


class TeacherReplica:
    """Hosts the engine that ``llm_config`` (the arguments of `ray.serve.llm.LLMConfig`)
    describes.
    """

    async def __init__(self, llm_config: dict):
        from ray.serve.llm import LLMConfig, LLMServer

        run_cpu_engine_in_process()
        self._server = LLMServer.sync_init(LLMConfig(**llm_config))
        await self._server.start()

    async def ask(self, prompts: Sequence[Prompt], sampling: dict) -> list[dict]:
        """K samples for each prompt, in their order: {"prompt_tokens": int, "samples": [(text,
        finish reason, tokens, thinking), ...]}.

        ``sampling``: n, temperature, top_p, max_tokens, stop. The answer holds plain values alone,
        which travel faster than vLLM's own.

        Raises:
            Refusal: the engine says that the request itself is at fault.
            TeacherError: the engine failed; a dead one takes this process with it.
        """
        if isinstance(prompts[0], str):
            return await self._complete(prompts, sampling)
        return list(await asyncio.gather(*(self._chat(messages, sampling) for messages in prompts)))

    async def check_health(self) -> None:
        """Called by Serve. A dead engine inside a living replica would answer every request with an
        error for ever (ray#59522), and
        Serve takes three failed checks to replace it: leaving at once lets it start a new one at
        once.
        """
        try:
            await self._server.check_health()
        except Exception:
            log.exception("the engine is dead: this replica leaves, so that Serve replaces it")
            os._exit(1)

    async def _complete(self, prompts: Sequence[str], sampling: dict) -> list[dict]:
        from ray.serve.llm.openai_api_models import CompletionRequest

        request = CompletionRequest(
            model=MODEL_ID, prompt=list(prompts), return_token_ids=True, **sampling
        )
        response = await self._only(self._server.completions(request))
        # prompt by prompt, the K samples of each together
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

    async def _chat(self, messages: list[dict], sampling: dict) -> dict:
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

    async def _only(self, pending):
        """The one response of a request that does not stream, or its error as an exception."""
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
