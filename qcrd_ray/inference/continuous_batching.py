"""vLLM's engine in one thread, step after step; callers join and leave between steps.

A text that arrives while others are written is written along with them from the next step on, and
leaves when it ends, or when nobody waits for it any longer. vLLM's own asynchronous engine does the
same from a process of its own, which a replica would have to watch; here it lives and dies with the
replica.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm import RequestOutput, SamplingParams, TokensPrompt
    from vllm.v1.engine.llm_engine import LLMEngine

    Hear = Callable[[RequestOutput], bool]

log = logging.getLogger(__name__)


class ContinuousBatching:
    """Requests to ``engine``, which no other thread may touch. Any thread may submit."""

    def __init__(self, engine: LLMEngine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        # what is to be done between two steps, and the future that it ends
        self._arrived: deque[tuple[Callable[[], None], Future[Any]]] = deque()
        self._running: dict[str, tuple[Future[RequestOutput], Hear | None]] = {}
        self._count = 0
        self._broken: Exception | None = None
        threading.Thread(target=self._run, name="continuous batching", daemon=True).start()

    def submit(
        self, prompt: TokensPrompt, params: SamplingParams, hear: Hear | None = None
    ) -> Future[RequestOutput]:
        """The finished output, as a future. It raises what vLLM refuses the request with.

        ``hear`` is given the output so far after each step that added to it. Where it returns True
        the request leaves the engine, and what there is of its output is the result.
        """
        from vllm.sampling_params import RequestOutputKind

        params.output_kind = RequestOutputKind.CUMULATIVE if hear else RequestOutputKind.FINAL_ONLY
        done: Future[RequestOutput] = Future()

        def begin() -> None:
            self._count += 1
            name = str(self._count)
            try:
                self._engine.add_request(name, prompt, params)
            except ValueError as error:  # this request's own fault
                done.set_exception(error)
            else:
                self._running[name] = done, hear

        self._between_steps(begin, done)
        return done

    def call(self, work: Callable[[], Any]) -> Any:
        """Do ``work`` when no text is being written, and return its result."""
        done: Future[Any] = Future()

        def begin() -> None:
            while self._running:
                self._step()
            done.set_result(work())

        self._between_steps(begin, done)
        return done.result()

    def _between_steps(self, begin: Callable[[], None], done: Future[Any]) -> None:
        with self._changed:
            if self._broken is not None:
                raise RuntimeError("the engine has died") from self._broken
            self._arrived.append((begin, done))
            self._changed.notify()

    def _run(self) -> None:
        arrived: deque[tuple[Callable[[], None], Future[Any]]] = deque()
        try:
            while True:
                with self._changed:
                    while not self._arrived and not self._running:
                        self._changed.wait()
                    arrived, self._arrived = self._arrived, deque()
                while arrived:
                    begin, done = arrived[0]
                    begin()
                    arrived.popleft()
                if self._running:
                    self._step()
        except Exception as error:
            log.exception("the engine has died")
            # It is in an unknown state: whoever waits is told, and so is whoever comes.
            with self._changed:
                self._broken = error
                begun = (done for done, _ in self._running.values())
                waiting = [*begun, *(done for _, done in (*arrived, *self._arrived))]
            for done in waiting:
                if not done.done():
                    done.set_exception(error)

    def _step(self) -> None:
        for output in self._engine.step():
            if TYPE_CHECKING:  # no request asks for the other kind, a pooled output
                assert isinstance(output, RequestOutput)
            done, hear = self._running[output.request_id]
            ends_here = not output.finished and hear is not None and hear(output)
            if ends_here:
                self._engine.abort_request([output.request_id])
            if output.finished or ends_here:
                del self._running[output.request_id]
                done.set_result(output)
