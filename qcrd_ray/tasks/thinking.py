"""What a completion says besides its thinking: the text that a reasoning model ends with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from qcrd_ray.data.records import Question
from qcrd_ray.tasks.base import Parsed, Task

CUT_OFF = "cut off inside its thinking"


def read_completion(
    text: str, task: Task, question: Question, *, marks: tuple[str, str] | None
) -> tuple[Thought, Parsed]:
    """A completion without its thinking, and what the task reads in it.

    Args:
        marks: the recipe's `task.thinking`, as for :func:`split_thinking`.

    Returns:
        Where there is no answer, `Parsed.reason` says why.
    """
    thought = split_thinking(text, marks)
    if thought.cut_off:
        return thought, Parsed(reason=CUT_OFF)
    parsed = task.parse(thought.text, question)
    if parsed.answer is None and not parsed.reason:
        parsed = replace(parsed, reason="no answer found")
    return thought, parsed


@dataclass(frozen=True, slots=True)
class Thought:
    """A completion, split by :func:`split_thinking`."""

    text: str  # without the thinking
    thinking: str = ""
    cut_off: bool = False  # the text ended before the thinking did


def split_thinking(text: str, marks: tuple[str, str] | None) -> Thought:
    """Split the thinking from ``text``. Neither part holds a mark.

    What stands between the marks (<think> ... </think>) is no rationale: it doubts, starts again
    and is long. Chat templates may write the opening mark into the prompt (DeepSeek-R1, QwQ), so a
    text may hold the closing one alone.

    A closing mark without an opening one ends a thinking that began in the prompt, so everything
    before it is thinking. An opening mark inside a thinking has no effect.

    Args:
        text: a completion.
        marks: the opening and the closing mark; None for a model without.
    """
    if marks is None or not any(mark in text for mark in marks):
        return Thought(text)
    opening, closing = marks
    answer: list[str] = []
    thinking: list[str] = []
    inside = False
    # The longer mark first: one may be the other's beginning.
    for piece in re.split(
        "|".join(f"({re.escape(mark)})" for mark in sorted(set(marks), key=len, reverse=True)), text
    ):
        if piece == opening and not inside:
            inside = True
        elif piece == closing:
            if not inside:
                thinking, answer = [*thinking, *answer], []
            inside = False
        elif piece and piece != opening:
            (thinking if inside else answer).append(piece)
    return Thought(_join_lines(answer), _join_lines(thinking), cut_off=inside)


def _join_lines(pieces: list[str]) -> str:
    """Join with line ends, so that no mark arises where one was taken out."""
    return "\n".join(part for part in map(str.strip, pieces) if part)
