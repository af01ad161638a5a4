"""OpenAI's request and response bodies, as far as a student can honour them.

A field that would change the answer, and that a student cannot honour, accepts only the value that
changes nothing. One that changes no answer is taken, and not used.

https://platform.openai.com/docs/api-reference/completions and /chat
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from qcrd_ray.serving.messages import MAX_SAMPLES, Choices, Seed

Zero = Annotated[float, Field(ge=0.0, le=0.0)]
Stop = Annotated[str, Field(min_length=1)]
Unused = Annotated[Any, Field(description="taken, and not used")]


class StreamOptions(BaseModel):
    """Options of a stream.

    `include_usage`: one more chunk, before the end, that carries the usage.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: Unused = None


class CommonRequest(BaseModel):
    """What both kinds of request share. `null` is the default everywhere, as with OpenAI."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str = Field(
        description=(
            "as GET /v1/models lists them; `<name>` writes a rationale that ends in its answer,"
            " `<name>:label` the label"
        )
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="at most what the student was trained to write"
    )
    n: int | None = Field(default=None, ge=1, le=MAX_SAMPLES, description="texts for each question")
    temperature: float | None = Field(
        default=None,
        ge=0.0,
        le=2.0,
        description="the default is 0, greedy, as the student was measured",
    )
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: Seed | None = Field(
        default=None,
        description=(
            "the same question and seed give the same text; without one each answer is drawn anew"
        ),
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = Field(
        default=None, description="the text ends before the first of these"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    choices: Choices = Field(
        default=[], description="for multiple choice; no field of OpenAI's: send it as `extra_body`"
    )
    metadata: Unused = None
    prompt_cache_key: Unused = None
    prompt_cache_options: Unused = None
    prompt_cache_retention: Unused = None
    safety_identifier: Unused = None
    service_tier: Unused = None
    store: Unused = None
    user: Unused = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None


class CompletionRequest(CommonRequest):
    """The prompt is the question alone, without a prefix; several are several questions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "student",
                    "prompt": "Tom has 3 apples and buys 4 more. How many apples has he now?",
                }
            ]
        }
    )

    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, fail_fast=True)]
    )
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None


class TextPart(BaseModel):
    """A part of a message: text alone, the student sees no pictures."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn, or an instruction, which is not read.

    Its further fields (`name`, `refusal` ...) are not read either.
    """

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The message's text; its parts are joined."""
        return (
            self.content
            if isinstance(self.content, str)
            else "".join(part.text for part in self.content or ())
        )


class ResponseFormat(BaseModel):
    """Plain text alone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]


class ChatRequest(CommonRequest):
    """The last turn, which must be the user's, is the question alone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "student",
                    "messages": [
                        {
                            "role": "user",
                            "content": (
                                "Tom has 3 apples and buys 4 more. How many apples has he now?"
                            ),
                        }
                    ],
                }
            ]
        }
    )

    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="OpenAI's newer name of max_tokens"
    )
    logprobs: Literal[False] | None = None
    top_logprobs: None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: Unused = None
    prediction: Unused = None
    reasoning_effort: Unused = None
    verbosity: Unused = None


class Usage(BaseModel):
    """Tokens of all questions and of all texts.

    Texts count as far as the student wrote them: with a `stop`, up to where it was seen.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Model(BaseModel):
    """One name that a request's `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "qcrd_ray"


class Models(BaseModel):
    """The body of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


_ANSWER = {
    "created": 1760000000,
    "system_fingerprint": "fp_086c677e68c5",
    "usage": {"prompt_tokens": 19, "completion_tokens": 18, "total_tokens": 37},
}
_ENDED = {"index": 0, "logprobs": None, "finish_reason": "stop"}
_TEXT = "That is 3 + 4 = 7 apples for Tom. So the answer is 7."
_MESSAGE = {"role": "assistant", "content": _TEXT, "refusal": None}
TEXT_EXAMPLE = {
    **_ANSWER,
    "id": "cmpl-94d6",
    "object": "text_completion",
    "model": "student",
    "choices": [{**_ENDED, "text": _TEXT}],
}
CHAT_EXAMPLE = {
    **_ANSWER,
    "id": "chatcmpl-40d9",
    "object": "chat.completion",
    "model": "student",
    "choices": [{**_ENDED, "message": _MESSAGE}],
}
