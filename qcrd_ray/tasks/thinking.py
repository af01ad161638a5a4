"""Reasoning models think aloud before they answer. What stands between the marks is no rationale:
it doubts, starts again, and is long.

Chat templates may write the opening mark into the prompt (DeepSeek-R1, QwQ), so a text may hold the
closing one alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thought:
    """A completion without its thinking (``text``), the thinking, and whether it was cut off before
    the thinking ended.
    """

    text: str
    thinking: str = ""
    cut_off: bool = False


def split_thinking(text: str, marks: tuple[str, str] | None) -> Thought:
    """Take the thinking out of ``text``; neither mark is left in either part. ``marks``: opening
    and closing, None for none.

    A closing mark without an opening one ends a thinking that began in the prompt: all before it is
    thinking. An opening mark inside a thinking opens nothing.
    """
    if marks is None or not any(mark in text for mark in marks):
        return Thought(text)
    opening, closing = marks
    told, thought, inside = [], [], False
    # The longer mark first: one may be the other's beginning.
    for piece in re.split(
        "|".join(f"({re.escape(mark)})" for mark in sorted(set(marks), key=len, reverse=True)), text
    ):
        if piece == opening and not inside:
            inside = True
        elif piece == closing:
            if not inside:
                thought, told = [*thought, *told], []
            inside = False
        elif piece and piece != opening:
            (thought if inside else told).append(piece)
    return Thought(_joined(told), _joined(thought), cut_off=inside)


def _joined(pieces: list[str]) -> str:
    """On lines of their own, so that no mark arises where one was taken out."""
    return "\n".join(part for part in map(str.strip, pieces) if part)
