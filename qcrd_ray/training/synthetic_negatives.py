"""Negatives that nobody wrote: the teacher's positives with other numbers, made anew in every
round, for questions answered by a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_random
from qcrd_ray.method.examples import Source
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.arithmetic import Arithmetic
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.numbers import find_number_words, find_numbers, plain
from qcrd_ray.tasks.steps import corrupted, evolved

if TYPE_CHECKING:
    from qcrd_ray.training.dataset import Row

# draws for each negative that is wanted: a drawn number may lead to a fraction, or to the right
# answer again
_TRIES = 12
PRETRAINING = -1  # the "round" of the discriminator's pretraining


def check_task(recipe: Recipe) -> str:
    """Say which sources are asked for.

    Raises:
        UserError: the task's answers are no numbers.
    """
    sources = synthetic_sources(recipe)
    if sources and not isinstance(build_task(recipe.task), Arithmetic):
        raise UserError(
            f"negatives.{sources[0]}: the answers of {recipe.task.kind} are no numbers, and these"
            " negatives are positives with other numbers: set it to 0"
        )
    return f"positives are also {' and '.join(sources)}" if sources else "none are made"


def check_rows(recipe: Recipe, task: Task, rows: Callable[[], Iterable[Row]]) -> None:
    """Refuse a source that can make nothing of the training questions, which ``rows`` reads from
    the first.

    Raises:
        UserError: it names the source.
    """
    for wanted in synthetic_sources(recipe):
        if not any(
            source == wanted
            for row in rows()
            for _, source in synthesize_negatives(recipe, task, row)
        ):
            raise UserError(
                f"negatives.{wanted}: no positive of the training questions can be rewritten, as"
                " none has steps like `3 + 4 = 7` with numbers of its question: set it to 0"
            )


def synthetic_sources(recipe: Recipe) -> tuple[Source, ...]:
    """The sources that the recipe asks for."""
    return tuple(
        source for source in (Source.CORRUPTED, Source.EVOLVED) if getattr(recipe.negatives, source)
    )


def synthesize_negatives(
    recipe: Recipe, task: Task, row: Row, *, round: int = PRETRAINING
) -> list[tuple[str, Source]]:
    """Up to `negatives.corrupted` and `negatives.evolved` wrong rationales of a question, a pure
    function of (seed, question, round).

    Each ends in an answer that is neither the label nor the positives'; none is a text that the
    question has already. Fewer come back
    where a question's positives do not give as many.
    """
    sources = synthetic_sources(recipe)
    if not sources or not row.positives:
        return []
    own = task.parse(row.positives[0], row.question).answer  # the vote, the same in all of them
    right = {own, row.answer, None}
    known = {*row.positives, *row.negatives}
    made: list[tuple[str, Source]] = []
    for source in sources:
        wanted, alter = getattr(recipe.negatives, source), _alteration(source, row, own)
        random = keyed_random(recipe.seed, source, row.question.id, round)
        before = len(made)
        for _ in range(_TRIES * wanted):
            text = alter(random.choice(row.positives), random)
            if (
                text is not None
                and text not in known
                and task.parse(text, row.question).answer not in right
            ):
                known.add(text)
                made.append((text, source))
            if len(made) - before == wanted:
                break
    return made


def _alteration(
    source: Source, row: Row, answer: str | None
) -> Callable[[str, Random], str | None]:
    """The source's function of (text, random)."""
    if source == Source.CORRUPTED:
        number = Fraction(answer) if answer is not None else None
        return lambda text, random: corrupted(text, number, random)
    question = plain(row.question.question)
    given = {*(value for _, _, value in find_numbers(question)), *find_number_words(question)}
    return lambda text, random: evolved(text, given, random)
