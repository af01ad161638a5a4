"""The fields of a question, each from the value that its column holds in a row.

A value that cannot be one raises ValueError with the reason why its row is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from qcrd_ray.data.columns import is_empty
from qcrd_ray.tasks.short_text import SEVERAL

_SYSTEM = ("system", "developer")


def is_chat(value: object) -> TypeGuard[list[object]]:
    """Whether the value of a column is a list of messages, and not of texts."""
    return isinstance(value, list) and any(isinstance(each, Mapping) for each in value)


def question_of(messages: Sequence[object], *, system: str | None) -> str:
    """The question of a chat: its one user turn. What the assistant says to it is not read.

    A system turn is a paragraph before it, so that both models read it, and is left out where it is
    ``system``, which is `task.system`: the teacher gets that anyway.

    Raises:
        ValueError: these are no messages, the chat has earlier turns, no user turn or an empty one,
            or a system turn other than ``system``.
    """
    turns = [_turn(number, message) for number, message in enumerate(messages, 1)]
    given = [text for role, text in turns if role in _SYSTEM]
    spoken = [(role, text) for role, text in turns if role not in _SYSTEM]
    asked = [place for place, (role, _) in enumerate(spoken) if role == "user"]
    if not asked:
        raise ValueError("messages: no turn is the user's, which would be the question")
    if earlier := asked[-1]:
        raise ValueError(
            f"messages: earlier turns ({earlier}) come before the user's last one; a student has no"
            " memory, so a question must say all by itself"
        )
    question = spoken[0][1]
    if not question.strip():
        raise ValueError("messages: the user's turn is empty")
    wanted = (system or "").strip()
    different = [text for text in given if text.strip() != wanted]
    if wanted and different:
        raise ValueError(
            f"messages: the system turn {different[0][:60]!r} is another than task.system; set that"
            " to null to have each row's own"
        )
    return "\n\n".join([*different, question])


def _turn(number: int, message: object) -> tuple[str, str]:
    """The role and the text of one message."""
    role, text = (
        (message.get("role"), message.get("content"))
        if isinstance(message, Mapping)
        else (None, None)
    )
    if role not in (*_SYSTEM, "user", "assistant") or not isinstance(text, str):
        raise ValueError(
            f"messages: item {number} must have a role (system, user or assistant) and a content,"
            " which is a text"
        )
    return role, text


def _text(value: object, column: str) -> str | None:
    """A text or a number as text; None if it is empty."""
    if is_empty(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{column} must be a text, not {type(value).__name__}")


def _choices(value: object, column: str) -> tuple[str, ...]:
    """A list of texts; also the Hub's {"label": [...], "text": [...]}."""
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"{column} must be a list of texts, not {type(value).__name__}")
    return tuple(_text(choice, f"each of {column}") or "" for choice in value)


def _answer(value: object, column: str, values: Mapping[str, str]) -> str | None:
    """The answer as text: its meaning in ``values``, if they are given and it is not one already.

    A list of accepted answers becomes one text.
    """
    if isinstance(value, list):
        accepted = (_answer(each, f"each of {column}", values) for each in value)
        return (
            f" {SEVERAL} ".join(dict.fromkeys(text for text in accepted if text is not None))
            or None
        )
    if not values or is_empty(value):
        return _text(value, column)
    key = value if isinstance(value, str) else str(value).lower()
    if isinstance(value, float):  # a table's integers beside a missing one
        key = f"{value:g}"
    if key in values.values() and key not in values:  # a meaning already: a class label's name
        return key
    if key not in values:
        raise ValueError(
            f"{column} is {key!r}, which data.values does not name; it names {', '.join(values)}"
        )
    return values[key]


# the field of a question from (its value, its column's name for an error, `data.values`)
READERS: Mapping[str, Callable[[object, str, Mapping[str, str]], Any]] = {
    "id": lambda value, column, values: _text(value, column) or "",
    "question": lambda value, column, values: _text(value, column) or "",
    "choices": lambda value, column, values: _choices(value, column),
    "answer": _answer,
    "rationale": lambda value, column, values: _text(value, column),
}
