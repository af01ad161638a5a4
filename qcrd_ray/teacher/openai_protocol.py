"""The OpenAI protocol: the key, request bodies, response bodies, and what an error means.

Nothing here opens a connection.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from qcrd_ray.data.records import Completion
from qcrd_ray.recipe import OpenAITeacher, SamplingRecipe
from qcrd_ray.run.secrets import read_api_key
from qcrd_ray.teacher.base import Prompt, Stopped, TeacherError, TeacherRefusal

MAX_ERROR_CHARS = 400  # of an endpoint's error that are kept
_PATHS = {"chat": "/chat/completions", "completions": "/completions"}
# fields that are the same for every question
_SHARED_FIELDS = {
    "model",
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_tokens",
    "stop",
}


@dataclass(frozen=True, slots=True)
class Samples:
    """The choices of one response, and its token counts (None: the endpoint does not say)."""

    completions: tuple[Completion, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


def read_key(recipe: OpenAITeacher) -> str | None:
    """The key from `teacher.api_key_file`, else from the variable `teacher.api_key_env`, else None.

    It is read on the node that sends the requests, when it sends them.

    Raises:
        UserError: see :func:`qcrd_ray.run.secrets.read_api_key`.
    """
    return read_api_key(section="teacher", file=recipe.api_key_file, variable=recipe.api_key_env)


def describe_key(recipe: OpenAITeacher) -> str:
    """Where the key comes from, in words without the key."""
    if recipe.api_key_file is not None:
        return f"with the key in {recipe.api_key_file}"
    return (
        f"with the key in ${recipe.api_key_env}"
        if recipe.api_key_env in os.environ
        else f"without a key (${recipe.api_key_env} is unset)"
    )


def url_of(recipe: OpenAITeacher) -> str:
    """The URL that takes this recipe's requests."""
    return recipe.base_url.rstrip("/") + _PATHS[recipe.endpoint]


def request_body(
    recipe: OpenAITeacher, sampling: SamplingRecipe, prompt: Prompt, *, n: int
) -> dict:
    """The JSON of a request for ``n`` samples.

    Fields at the protocol's default are left out: some endpoints refuse them.
    """
    body = {
        "model": recipe.model,
        ("messages" if recipe.endpoint == "chat" else "prompt"): prompt,
        "n": n if n > 1 else None,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.top_p < 1.0 else None,
        # not of OpenAI's protocol, but of vLLM's and most open models' endpoints
        "top_k": sampling.top_k or None,
        "min_p": sampling.min_p or None,
        "repetition_penalty": (
            sampling.repetition_penalty if sampling.repetition_penalty != 1.0 else None
        ),
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
    }
    return {
        name: value for name, value in {**body, **recipe.extra_body}.items() if value is not None
    }


def read_samples(text: str) -> Samples:
    """Read the choices in a response's body.

    Raises:
        TeacherError: the body is cut, has another form than the protocol's, holds no choice, or
            holds an error.
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
    """Raise the exception that a response with an error status stands for.

    Raises:
        Stopped: no question of this run can be answered: the key, the account, the model, the URL,
            or a field of the request is at fault.
        TeacherRefusal: this question cannot be answered; its prompt is too long, for example.
        TeacherError: a retry may help.
    """
    message, code, field = _message(text)
    error = f"HTTP {status}: {_short(message)}"
    if status == 401:
        raise Stopped(
            f"the endpoint refuses the key; it was asked {describe_key(recipe)} on"
            f" {platform.node()}: {error}"
        )
    if status == 402 or code == "insufficient_quota":
        raise Stopped(f"the account behind the key has nothing left to spend: {error}")
    if status == 404:
        raise Stopped(
            f"there is no model {recipe.model!r} at {url_of(recipe)} (teacher.model,"
            f" teacher.base_url): {error}"
        )
    if status in (400, 413, 422):
        if field in _SHARED_FIELDS | recipe.extra_body.keys() and "context" not in message.lower():
            raise Stopped(
                f"the endpoint refuses {field!r}; change it under sampling, or teacher.extra_body"
                f" (null leaves it out): {error}"
            )
        raise TeacherRefusal(error)
    raise TeacherError(error, retry_after_s=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that `Retry-After` asks for, by number or date; 0 if it is missing or neither."""
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
    """One choice.

    Its thinking may be in a field of its own: `reasoning_content` at DeepSeek, `reasoning` at vLLM
    and OpenRouter.
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
    """(message, code, field at fault) of an error body, in any form that endpoints use.

    The message is the text itself where the form is unknown.
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
    """Equal shares that add up to ``total``: a response counts its choices' tokens together."""
    return [total // count + (number < total % count) for number in range(count)]


def _short(text: str) -> str:
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= MAX_ERROR_CHARS else squeezed[:MAX_ERROR_CHARS] + " ..."
