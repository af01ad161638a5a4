"""A hook of Ray's LLM server for models that lie in a folder already. Imported in a teacher's replica only."""

from __future__ import annotations

from ray.llm._internal.common.callbacks.base import CallbackBase


class NoDownload(CallbackBase):
    """Skips the step that downloads the model: it runs in a process of its own on each node, which imports vLLM before it finds that
    there is nothing to download -- ten seconds of a start on a quiet machine."""

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False
