"""OpenAI's API over a student, so that their clients work unchanged.

A student answers single questions: a prompt is a question, and so is the last message of a chat. It
follows no instructions and has no memory, so a system message is an error, and earlier turns are
not read. A text is streamed word by word once it is whole: the student's texts are short, and an
error still gets its HTTP status.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import Sampling
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.serving.http_errors import ErrorBody, RequestError
from qcrd_ray.serving.openai_messages import (
    CHAT_EXAMPLE,
    TEXT_EXAMPLE,
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    Model,
    Models,
    Usage,
)
from qcrd_ray.serving.service import Service

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PATHS = (COMPLETIONS, CHAT)
LABEL = ":label"  # behind the model's name: the label head is asked
_ERRORS = {status: {"model": ErrorBody} for status in (400, 404, 413, 503, 504)}


def _answers(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The answers of a route, for the description: OpenAI's object, or the same in pieces."""
    content = {
        "application/json": {"example": example},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    return {
        200: {
            "description": "OpenAI's object; with `stream`, server-sent events.",
            "content": content,
        },
        **_ERRORS,
    }


def make_router(service: Service) -> APIRouter:
    """The routes under /v1 that OpenAI's clients call."""
    router = APIRouter(tags=["OpenAI-compatible"])
    name, created = service.recipe.model_name, int(time.time())
    listed = [Model(id=name, created=created), Model(id=name + LABEL, created=created)]

    @router.get("/v1/models")
    async def models() -> Models:
        """List the names that `model` may have."""
        return Models(data=listed)

    @router.get("/v1/models/{model}", responses={404: {"model": ErrorBody}})
    async def model(model: str) -> Model:
        """Describe one of those names."""
        head_of(model, name)
        return next(one for one in listed if one.id == model)

    @router.post(COMPLETIONS, responses=_answers(TEXT_EXAMPLE), response_class=JSONResponse)
    async def completions(request: CompletionRequest) -> Response:
        """Write about one question or several.

        `prompt` is the question alone. `<name>:label` gives the label, `<name>` a rationale. Tokens
        instead of text, `echo`, `logprobs`, `best_of` and penalties are errors.
        """
        prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        return await _respond(
            service,
            request,
            prompts,
            max_tokens=request.max_tokens,
            field="prompt",
            form=_TextForm(),
        )

    @router.post(CHAT, responses=_answers(CHAT_EXAMPLE), response_class=JSONResponse)
    async def chat(request: ChatRequest) -> Response:
        """Answer the last message, which must be the user's, as a question alone.

        The student follows no instructions: a `system` message is an error. It has no memory:
        earlier turns are not read. Tools, pictures, `logprobs` and forced formats are errors.
        """
        for number, message in enumerate(request.messages):
            if message.role not in ("user", "assistant"):
                where = f"messages.{number}.role"
                raise RequestError(
                    400,
                    f"{where}: expected user or assistant; this student follows no other"
                    " instructions",
                    param=where,
                )
        if request.messages[-1].role != "user":
            raise RequestError(
                400,
                "messages: the last one must be the user's, for it is the question",
                param="messages",
            )
        limit = request.max_completion_tokens or request.max_tokens
        return await _respond(
            service,
            request,
            [request.messages[-1].text],
            max_tokens=limit,
            field="messages",
            form=_ChatForm(),
        )

    return router


def head_of(model: str, name: str) -> Head:
    """The head that a model's name asks for.

    Raises:
        RequestError: there is no such model.
    """
    if model not in (name, name + LABEL):
        raise RequestError(
            404,
            f"model: there is {name} (rationales) and {name}{LABEL} (labels) here",
            param="model",
            code="model_not_found",
        )
    return "label" if model.endswith(LABEL) else "rationale"


async def _respond(
    service: Service,
    request: CommonRequest,
    texts: Sequence[str],
    *,
    max_tokens: int | None,
    field: str,
    form: _TextForm | _ChatForm,
) -> Response:
    """Ask the student, and put what it writes into OpenAI's form, whole or as a stream."""
    head = head_of(request.model, service.recipe.model_name)
    questions = [
        Question(id="request", question=text, choices=tuple(request.choices)) for text in texts
    ]
    read = [_checked(service, question, head, field) for question in questions]
    sampling = Sampling(
        max_tokens=min(max_tokens or service.student.max_tokens, service.student.max_tokens),
        n=request.n or 1,
        temperature=request.temperature or 0.0,
        top_p=request.top_p or 1.0,
        # greedy texts have no seed: all of them are written together
        seed=request.seed if request.temperature else 0,
    )
    if len(questions) * sampling.n > service.recipe.max_questions:
        raise RequestError(
            400,
            f"n: one request may ask for at most {service.recipe.max_questions} texts in all",
            param="n",
        )
    answers = [
        answer
        for several in await service.write(questions, head=head, sampling=sampling)
        for answer in several
    ]
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    written = [_ended(answer, stops) for answer in answers]
    tokens = sum(read), sum(answer.tokens for answer in answers)
    usage = Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1], total_tokens=sum(tokens))
    version = service.student.folder.facts.get("exported_from")
    shared = {
        "id": f"{form.prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": request.model,
        "system_fingerprint": f"fp_{version[:12]}" if version else None,
    }
    if request.stream:
        wanted = request.stream_options is not None and request.stream_options.include_usage
        return StreamingResponse(
            _events(shared, written, usage if wanted else None, form),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
    choices = [
        {"index": i, **form.whole(text), "logprobs": None, "finish_reason": reason}
        for i, (text, reason) in enumerate(written)
    ]
    return JSONResponse(
        {**shared, "object": form.object, "choices": choices, "usage": usage.model_dump()}
    )


def _checked(service: Service, question: Question, head: Head, field: str) -> int:
    """The number of the question's tokens.

    Raises:
        RequestError: it cannot be answered, or is longer than the student reads.
    """
    if reason := service.student.refusal(question):
        raise RequestError(400, f"{field}: {reason}", param=field)
    tokens, longest = (
        service.student.prompt_tokens(question, head=head),
        service.student.max_input_tokens,
    )
    if tokens > longest:
        raise RequestError(
            400,
            f"{field}: the question has {tokens} tokens; this student reads {longest}",
            param=field,
            code="context_length_exceeded",
        )
    return tokens


def _ended(answer: HeadAnswer, stops: Sequence[str]) -> tuple[str, str]:
    """(text, finish reason), cut before the first of ``stops``."""
    places = [place for stop in stops if (place := answer.text.find(stop)) >= 0]
    return (answer.text[: min(places)], "stop") if places else (answer.text, answer.finish_reason)


def _events(
    shared: dict[str, Any],
    written: Sequence[tuple[str, str]],
    usage: Usage | None,
    form: _TextForm | _ChatForm,
) -> Iterator[str]:
    """The server-sent events of a stream.

    Each text comes word by word, then its finish reason; the usage follows where it is wanted, and
    `[DONE]` ends the stream.
    """

    def event(choices: list[dict], **more: Any) -> str:
        chunk = {**shared, "object": form.chunk_object, "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    # with the usage asked for, every other chunk says that it does not carry it
    pending = {"usage": None} if usage else {}
    for index, (text, reason) in enumerate(written):
        pieces = [
            *form.opening(),
            *(form.piece(word) for word in re.findall(r"\s*\S+|\s+\Z", text)),
        ]
        for piece in pieces:
            yield event(
                [{"index": index, **piece, "logprobs": None, "finish_reason": None}], **pending
            )
        yield event(
            [{"index": index, **form.end(), "logprobs": None, "finish_reason": reason}], **pending
        )
    if usage:
        yield event([], usage=usage.model_dump())
    yield "data: [DONE]\n\n"


class _TextForm:
    """How /v1/completions spells a choice."""

    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def whole(self, text: str) -> dict:
        return {"text": text}

    def opening(self) -> list[dict]:
        return []

    def piece(self, word: str) -> dict:
        return {"text": word}

    def end(self) -> dict:
        return {"text": ""}


class _ChatForm:
    """How /v1/chat/completions spells a choice."""

    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def whole(self, text: str) -> dict:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> list[dict]:
        return [{"delta": {"role": "assistant", "content": ""}}]

    def piece(self, word: str) -> dict:
        return {"delta": {"content": word}}

    def end(self) -> dict:
        return {"delta": {}}
