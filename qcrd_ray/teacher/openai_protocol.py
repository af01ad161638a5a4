"""The words of the OpenAI protocol: what is sent, what comes back, and what an error means. Pure:
nothing here opens a connection.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from qcrd_ray.data.records import Completion
from qcrd_ray.recipe import OpenAITeacher, SamplingRecipe
from qcrd_ray.teacher.api_key import describe_key
from qcrd_ray.teacher.base import Prompt, Stopped, TeacherError, TeacherRefusal

LONGEST_REASON = 400  # characters of an endpoint's error that are kept
_PATHS = {"chat": "/chat/completions", "completions": "/completions"}
# fields that are the same for every question
_OF_THE_REQUEST = {"model", "n", "temperature", "top_p", "max_tokens", "stop"}


@dataclass(frozen=True, slots=True)
class Samples:
    """The choices of one response, and its tokens: None where the endpoint does not say."""

    completions: tuple[Completion, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


def url_of(recipe: OpenAITeacher) -> str:
    return recipe.base_url.rstrip("/") + _PATHS[recipe.endpoint]


def request_body(
    recipe: OpenAITeacher, sampling: SamplingRecipe, prompt: Prompt, *, n: int
) -> dict:
    """The JSON of a request for ``n`` samples. What stands at the protocol's default is left out:
    some endpoints refuse the field.
    """
    body = {
        "model": recipe.model,
        ("messages" if recipe.endpoint == "chat" else "prompt"): prompt,
        "n": n if n > 1 else None,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.top_p < 1.0 else None,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
    }
    return {
        name: value for name, value in {**body, **recipe.extra_body}.items() if value is not None
    }


def read_samples(text: str) -> Samples:
    """The choices in a response's body.

    Raises:
        TeacherError: half a body, another form than the protocol's, no choice at all, or an error
            in place of an answer.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise TeacherError(
            f"the endpoint's answer is no JSON ({error}): {_short(text)!r}"
        ) from None
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise TeacherError(f"the endpoint's answer holds no choices: {_short(_message(text)[0])!r}")
    if not body["choices"]:
        raise TeacherError("the endpoint's list of choices is empty")
    usage = body.get("usage") or {}
    prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    shares = _shares(completion_tokens or 0, len(body["choices"]))
    completions = tuple(
        _completion(choice, tokens) for choice, tokens in zip(body["choices"], shares, strict=True)
    )
    return Samples(completions, prompt_tokens, completion_tokens)


def raise_error(status: int, headers: Mapping[str, str], text: str, recipe: OpenAITeacher) -> None:
    """Turn a response that is no success into the exception that says what to do about it.

    Raises:
        Stopped: no question of this run can be answered: the key, the account, the model, the URL,
            or a field of the request.
        Refusal: this question cannot be answered: its prompt is too long, say.
        TeacherError: another try may help.
    """
    message, code, field = _message(text)
    told = f"HTTP {status}: {_short(message)}"
    if status == 401:
        raise Stopped(
            f"the endpoint refuses the key; it was asked {describe_key(recipe)} on"
            f" {platform.node()}: {told}"
        )
    if status == 402 or code == "insufficient_quota":
        raise Stopped(f"the account behind the key has nothing left to spend: {told}")
    if status == 404:
        raise Stopped(
            f"there is no model {recipe.model!r} at {url_of(recipe)} (teacher.model,"
            f" teacher.base_url): {told}"
        )
    if status in (400, 413, 422):
        if field in _OF_THE_REQUEST | recipe.extra_body.keys() and "context" not in message.lower():
            raise Stopped(
                f"the endpoint refuses {field!r}; change it under sampling, or teacher.extra_body"
                f" (null leaves it out): {told}"
            )
        raise TeacherRefusal(told)
    raise TeacherError(told, retry_after_s=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that `Retry-After` asks for, as a number or as a date; 0 where it is missing or
    neither.
    """
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _completion(choice: object, tokens: int) -> Completion:
    """One choice. Its thinking may come in a field of its own (`reasoning_content` at DeepSeek,
    `reasoning` at vLLM and OpenRouter).
    """
    if not isinstance(choice, dict):
        raise TeacherError(
            f"a choice of the endpoint's answer is no object: {_short(str(choice))!r}"
        )
    message = choice.get("message") or {}
    text = message.get("content") or message.get("refusal") or choice.get("text") or ""
    thinking = message.get("reasoning_content") or message.get("reasoning") or ""
    if not isinstance(text, str) or not isinstance(thinking, str):
        raise TeacherError(
            "a choice of the endpoint's answer holds parts where a text was expected"
        )
    return Completion(
        text=text,
        thinking=thinking,
        finish_reason=str(choice.get("finish_reason") or "stop"),
        tokens=tokens,
    )


def _message(text: str) -> tuple[str, str, str]:
    """(message, code, field at fault) of an error body in any of the forms that endpoints use; the
    text itself where it is in none.
    """
    try:
        body = json.loads(text)
    except ValueError:
        return text, "", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error), "", ""
    message = error.get("message") or error.get("detail") or text
    return str(message), str(error.get("code") or ""), str(error.get("param") or "")


def _shares(total: int, count: int) -> list[int]:
    """A response counts its choices' tokens together: each gets an equal share, and the shares add
    up.
    """
    return [total // count + (place < total % count) for place in range(count)]


def _short(text: str) -> str:
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= LONGEST_REASON else squeezed[:LONGEST_REASON] + " ..."
