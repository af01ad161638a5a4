"""OpenAI's API over a student, so that their clients work unchanged.

A student answers single questions: a prompt is a question, and so is the last turn of a chat. It
follows no instructions and has no memory, so system messages and earlier turns are not read. A text
ends where a `stop` of its request begins. Nothing is written behind it, and nothing for a caller
who has hung up; what was written is what `usage` counts.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import Sampling
from qcrd_ray.inference.heads import Head, HeadAnswer
from qcrd_ray.serving.bounded_json import BoundedRoute
from qcrd_ray.serving.caller import Caller
from qcrd_ray.serving.http_errors import ErrorBody, RequestError
from qcrd_ray.serving.openai_messages import (
    CHAT_EXAMPLE,
    TEXT_EXAMPLE,
    ChatRequest,
    CommonRequest,
    CompletionRequest,
    Model,
    Models,
)
from qcrd_ray.serving.openai_replies import ChatForm, EventStream, Reply, TextForm
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
    router = APIRouter(tags=["OpenAI-compatible"], route_class=BoundedRoute)
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
            limited_by="max_tokens",
            field="prompt",
            form=TextForm(),
        )

    @router.post(CHAT, responses=_answers(CHAT_EXAMPLE), response_class=JSONResponse)
    async def chat(request: ChatRequest) -> Response:
        """Answer the last message of the user, which must be the last turn, as a question alone.

        The student was trained on one task and follows no instructions: `system` and `developer`
        messages are not read. It has no memory: earlier turns are not read. Tools, pictures,
        `logprobs` and forced formats are errors.
        """
        turns = [each for each in request.messages if each.role not in ("system", "developer")]
        if not turns or turns[-1].role != "user":
            raise RequestError(
                400,
                "messages: the last turn must be the user's, for it is the question",
                param="messages",
            )
        newer = request.max_completion_tokens is not None
        return await _respond(
            service,
            request,
            [turns[-1].text],
            max_tokens=request.max_completion_tokens if newer else request.max_tokens,
            limited_by="max_completion_tokens" if newer else "max_tokens",
            field="messages",
            form=ChatForm(),
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
    limited_by: str,
    field: str,
    form: TextForm | ChatForm,
) -> Response:
    """Ask the student, and put what it writes into OpenAI's form, whole or as a stream."""
    head = head_of(request.model, service.recipe.model_name)
    n, longest = request.n or 1, service.student.max_tokens
    if len(texts) * n > service.recipe.max_questions:
        raise RequestError(
            400,
            f"n: one request may ask for at most {service.recipe.max_questions} texts in all",
            param="n",
        )
    if max_tokens is not None and max_tokens > longest:
        raise RequestError(
            400,
            f"{limited_by}: this student writes at most {longest} tokens",
            param=limited_by,
            code="invalid_value",
        )
    questions = [
        Question(id="request", question=text, choices=tuple(request.choices)) for text in texts
    ]
    sampling = Sampling(
        max_tokens=max_tokens or longest,
        n=n,
        temperature=request.temperature or 0.0,
        top_p=request.top_p or 1.0,
        # greedy texts have no seed: all of them are written together
        seed=request.seed if request.temperature else 0,
    )
    reply = Reply(
        form,
        model=request.model,
        version=service.student.folder.facts.get("exported_from"),
        questions=len(questions),
        n=n,
        stops=[request.stop] if isinstance(request.stop, str) else request.stop or [],
        prompt_tokens=sum(
            [await _checked(service, question, head, field) for question in questions]
        ),
    )

    def write(callers: Sequence[Caller]) -> Awaitable[list[list[HeadAnswer]]]:
        return service.write(questions, head=head, sampling=sampling, callers=callers)

    if not request.stream:
        return JSONResponse(await reply.whole(write))
    usage = request.stream_options is not None and request.stream_options.include_usage
    events = reply.events(write, usage=usage)
    await anext(events)  # an error before the first token is answered by its status
    return EventStream(events)


async def _checked(service: Service, question: Question, head: Head, field: str) -> int:
    """The number of the question's tokens.

    Raises:
        RequestError: it cannot be answered, or is longer than the student reads.
    """
    if reason := service.student.refusal(question):
        raise RequestError(400, f"{field}: {reason}", param=field)
    tokens, longest = await service.tokens(question, head=head), service.student.max_input_tokens
    if tokens is None or tokens > longest:
        raise RequestError(
            400,
            f"{field}: the question has {tokens or 'far too many'} tokens; this student reads"
            f" {longest}",
            param=field,
            code="context_length_exceeded",
        )
    return tokens
