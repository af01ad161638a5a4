"""What OpenAI's routes answer: a choice for each text, whole or as it is written."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.serving.caller import Caller, before_stop
from qcrd_ray.serving.http_errors import RequestError
from qcrd_ray.serving.openai_messages import Usage

logger = logging.getLogger("ray.serve")

Write = Callable[[Sequence[Caller]], Awaitable[list[list[HeadAnswer]]]]


class Reply:
    """The reply to one request: ``n`` choices for each of its questions.

    ``form`` spells the choices, ``version`` is the student's, ``prompt_tokens`` those of all
    questions.
    """

    def __init__(
        self,
        form: TextForm | ChatForm,
        *,
        model: str,
        version: str | None,
        questions: int,
        n: int,
        stops: Sequence[str],
        prompt_tokens: int,
    ) -> None:
        self.form, self.questions, self.n = form, questions, n
        self.stops, self.prompt_tokens = stops, prompt_tokens
        self.shared = {
            "id": f"{form.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"fp_{version[:12]}" if version else None,
        }

    async def whole(self, write: Write) -> dict[str, Any]:
        """The body of a reply that is no stream."""
        answers = await write([Caller(stops=self.stops) for _ in range(self.questions)])
        choices = []
        for index, answer in enumerate(answer for several in answers for answer in several):
            text, reason = self._ended(answer)
            end = {"logprobs": None, "finish_reason": reason}
            choices.append({"index": index, **self.form.whole(text), **end})
        usage = self._usage(answers).model_dump()
        return {**self.shared, "object": self.form.object, "choices": choices, "usage": usage}

    async def events(self, write: Write, *, usage: bool) -> AsyncGenerator[str]:
        """The server-sent events of a stream: each piece of each choice as it is written.

        The first is empty and comes once there is something to send, so that an error before that
        is raised while it can have a status. A later one is an event.
        """
        pieces: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue()
        put = asyncio.get_running_loop().call_soon_threadsafe

        def tell(question: int) -> Callable[[int, str], None]:
            first = question * self.n
            return lambda sample, piece: put(pieces.put_nowait, (first + sample, piece)) and None

        callers = [Caller(stops=self.stops, tell=tell(i)) for i in range(self.questions)]
        writing = asyncio.ensure_future(write(callers))
        writing.add_done_callback(lambda _: pieces.put_nowait(None))
        # with the usage asked for, every other chunk says that it does not carry it
        pending = {"usage": None} if usage else {}
        opened: set[int] = set()

        def chunks(index: int, *parts: dict[str, Any], reason: str | None = None) -> str:
            opening = () if index in opened else self.form.opening()
            opened.add(index)
            end = {"logprobs": None, "finish_reason": reason}
            return "".join(
                self._event([{"index": index, **part, **end}], **pending)
                for part in (*opening, *parts)
            )

        try:
            piece = await pieces.get()
            if piece is None:
                await writing  # it may have failed
            yield ""
            while piece is not None:
                index, text = piece
                yield chunks(index, self.form.piece(text))
                piece = await pieces.get()
            answers = await writing
            for question, several in enumerate(answers):
                for sample, answer in enumerate(several):
                    index = question * self.n + sample
                    text, reason = self._ended(answer)
                    if rest := callers[question].rest(sample, text):
                        yield chunks(index, self.form.piece(rest))
                    yield chunks(index) + chunks(index, self.form.end(), reason=reason)
            if usage:
                yield self._event([], usage=self._usage(answers).model_dump())
            yield "data: [DONE]\n\n"
        except Exception as error:
            if not opened:
                raise
            logger.error("a stream failed", exc_info=error)
            if not isinstance(error, RequestError):
                error = RequestError(500, "the student failed to go on")
            yield f"data: {bytes(error.response().body).decode()}\n\n"
        finally:
            writing.cancel()  # the caller may have hung up

    def _ended(self, answer: HeadAnswer) -> tuple[str, str]:
        """(text, finish reason), cut before the first stop."""
        text = before_stop(answer.text, self.stops)
        return text, "stop" if len(text) < len(answer.text) else answer.finish_reason

    def _usage(self, answers: Sequence[Sequence[HeadAnswer]]) -> Usage:
        written = sum(answer.tokens for several in answers for answer in several)
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=written,
            total_tokens=self.prompt_tokens + written,
        )

    def _event(self, choices: list[dict], **more: Any) -> str:
        chunk = {**self.shared, "object": self.form.chunk_object, "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


class EventStream(StreamingResponse):
    """A stream of server-sent events, whose source is closed when the caller hangs up."""

    def __init__(self, events: AsyncGenerator[str]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            # nginx, and what learnt it from there, gathers an answer otherwise
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody is there to be told
        finally:
            await self._events.aclose()


class TextForm:
    """How /v1/completions spells a choice."""

    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def whole(self, text: str) -> dict:
        return {"text": text}

    def opening(self) -> tuple[dict, ...]:
        return ()

    def piece(self, text: str) -> dict:
        return {"text": text}

    def end(self) -> dict:
        return {"text": ""}


class ChatForm:
    """How /v1/chat/completions spells a choice."""

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def whole(self, text: str) -> dict:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> tuple[dict, ...]:
        return ({"delta": {"role": "assistant", "content": ""}},)

    def piece(self, text: str) -> dict:
        return {"delta": {"content": text}}

    def end(self) -> dict:
        return {"delta": {}}
