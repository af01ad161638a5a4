"""The OpenAI protocol: the key, request bodies, response bodies, and what an error means.

Nothing here opens a connection.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from qcrd_ray.data.records import Completion
from qcrd_ray.recipe import OpenAITeacher, SamplingRecipe
from qcrd_ray.runs.secrets import read_api_key
from qcrd_ray.teacher.base import Prompt, Stopped, TeacherAway, TeacherError, TeacherRefusal

MAX_ERROR_CHARS = 400  # of an endpoint's error that are kept
MAX_FINISH_REASON_CHARS = 40
MAX_TOKENS = 10**9  # of one response; more is no count
_SURROGATE = re.compile("[\ud800-\udfff]")
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
        UserError: see :func:`qcrd_ray.runs.secrets.read_api_key`.
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
    """Read the choices in a response's body, whatever it holds.

    Halves of surrogate pairs, which are no characters, are replaced. Token counts that cannot be
    are taken for unknown: the answer is paid for, and its texts are right all the same.

    Raises:
        TeacherError: the body is cut, has another form than the protocol's, holds no choice, or
            holds an error.
    """
    body = _load(text)
    if body is None:
        raise TeacherError(f"the endpoint's answer is no JSON: {_short(text)!r}")
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(choices, list):
        raise TeacherError(f"the endpoint's answer holds no choices: {_short(_message(text)[0])!r}")
    if not choices:
        raise TeacherError("the endpoint's list of choices is empty")
    usage = body.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    prompt_tokens, completion_tokens = (
        _count(counts.get(name)) for name in ("prompt_tokens", "completion_tokens")
    )
    shares = _shares(completion_tokens or 0, len(choices))
    completions = tuple(map(_completion, choices, shares))
    return Samples(completions, prompt_tokens, completion_tokens)


def read_models(text: str) -> list[str]:
    """The names in a list of models; [] if it has another form."""
    body = _load(text)
    listed = body.get("data") if isinstance(body, dict) else body
    models = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return [name for model in models if isinstance(name := model.get("id"), str)]


def raise_error(status: int, headers: Mapping[str, str], text: str, recipe: OpenAITeacher) -> None:
    """Raise the exception that a response with an error status stands for.

    Raises:
        Stopped: no question of this run can be answered: the key, the account, the model, the URL,
            or a field of the request is at fault.
        TeacherRefusal: this question cannot be answered; its prompt is too long, for example.
        TeacherAway: a retry may help.
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
    raise TeacherAway(error, retry_after_s=retry_after(headers))


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that `Retry-After` asks for, by number or date; 0 if it is missing or neither."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _completion(choice: object, tokens: int) -> Completion:
    """One choice.

    Its thinking may be in a field of its own: `reasoning_content` at DeepSeek, `reasoning` at vLLM
    and OpenRouter.
    """
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict | None):
        raise TeacherError(
            f"a choice of the endpoint's answer, or its message, is no object: {_short(choice)!r}"
        )
    message = message or {}
    return Completion(
        text=_text(message, "content") or _text(message, "refusal") or _text(choice, "text"),
        thinking=_text(message, "reasoning_content") or _text(message, "reasoning"),
        finish_reason=_text(choice, "finish_reason")[:MAX_FINISH_REASON_CHARS] or "stop",
        tokens=tokens,
    )


def _text(fields: dict[str, object], name: str) -> str:
    """A field as text without halves of surrogate pairs; "" if it is missing or null."""
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TeacherError(
            f"a choice of the endpoint's answer holds parts where a text was expected: {name} is"
            f" {_short(value)!r}"
        )
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)


def _count(value: object) -> int | None:
    """A number of tokens; None if it can be none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    whole = isinstance(value, int) or value.is_integer()
    return int(value) if whole and 0 <= value <= MAX_TOKENS else None


def _load(text: str) -> object:
    """The JSON of a body; None if it is none, or brackets nested by the thousand."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(text: str) -> tuple[str, str, str]:
    """(message, code, field at fault) of an error body, in any form that endpoints use.

    The message is the text itself where the form is unknown.
    """
    body = _load(text)
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, str):
        return error, "", ""
    if not isinstance(error, dict):
        return text, "", ""
    told = (error.get("message"), error.get("detail"))
    message = next((each for each in told if isinstance(each, str) and each), text)
    code, field = error.get("code"), error.get("param")
    return message, code if isinstance(code, str) else "", field if isinstance(field, str) else ""


def _shares(total: int, count: int) -> list[int]:
    """Equal shares that add up to ``total``: a response counts its choices' tokens together."""
    return [total // count + (number < total % count) for number in range(count)]


def _short(value: object) -> str:
    """The beginning of a text on one line; of anything else, what kind of JSON it is."""
    if not isinstance(value, str):
        return f"a JSON {type(value).__name__}"
    squeezed = " ".join(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value).split())
    return squeezed if len(squeezed) <= MAX_ERROR_CHARS else squeezed[:MAX_ERROR_CHARS] + " ..."
