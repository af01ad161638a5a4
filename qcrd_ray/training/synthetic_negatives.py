"""Synthetic negatives: the teacher's positives with other numbers, generated anew in every round.

They are for tasks whose answers are numbers.
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

# per negative: a drawn number may lead to a fraction, or to the right answer again
_TRIES = 12
PRETRAINING = -1  # the "round" of the discriminator's pretraining


def check_sources(recipe: Recipe) -> str:
    """Check that the recipe's sources suit its task. Returns a line that says which they are.

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
    """Check that each source can make a negative of some training question.

    ``rows`` returns an iterator over all questions; each call starts at the first.

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
    """Up to `negatives.corrupted` and `negatives.evolved` wrong rationales of a question.

    A pure function of (seed, question, round). Each ends in an answer that is neither the label nor
    the positives'; none is a text that the question has already. There are fewer where a question's
    positives do not give as many.
    """
    sources = synthetic_sources(recipe)
    if not sources or not row.positives:
        return []
    vote = task.parse(row.positives[0], row.question).answer  # the same in all positives
    not_wrong = {vote, row.answer, None}
    known = {*row.positives, *row.negatives}
    synthetic: list[tuple[str, Source]] = []
    for source in sources:
        wanted, alter = getattr(recipe.negatives, source), _alteration(source, row, vote)
        random = keyed_random(recipe.seed, source, row.question.id, round)
        before = len(synthetic)
        for _ in range(_TRIES * wanted):
            text = alter(random.choice(row.positives), random)
            if (
                text is not None
                and text not in known
                and task.parse(text, row.question).answer not in not_wrong
            ):
                known.add(text)
                synthetic.append((text, source))
            if len(synthetic) - before == wanted:
                break
    return synthetic


def _alteration(
    source: Source, row: Row, answer: str | None
) -> Callable[[str, Random], str | None]:
    """The source's function of (text, random), which gives a wrong text or None."""
    if source == Source.CORRUPTED:
        number = Fraction(answer) if answer is not None else None
        return lambda text, random: corrupted(text, number, random)
    question = plain(row.question.question)
    given = {*(value for _, _, value in find_numbers(question)), *find_number_words(question)}
    return lambda text, random: evolved(text, given, random)
