"""Synthetic negatives: the teacher's positives with other numbers, generated anew in every round.

They are for tasks whose answers are numbers. They stay in the tokenizer's vocabulary: a text with
an unknown token would be told by that token, and not by its error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from qcrd_ray.errors import UserError
from qcrd_ray.method.batching import keyed_random
from qcrd_ray.method.examples import Source
from qcrd_ray.method.tokenization import unknown_tokens
from qcrd_ray.recipe import Recipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.arithmetic import Arithmetic
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.numbers import find_number_words, find_numbers, plain
from qcrd_ray.tasks.steps import corrupted, evolved, misoperated, swapped

if TYPE_CHECKING:
    from qcrd_ray.training.dataset import Row

Alteration = Callable[[str, Random], str | None]  # a wrong text of a right one; None: draw again

# per negative: a drawn number may lead to a fraction, or to the right answer again
_TRIES = 12
PRETRAINING = -1  # the "round" of the discriminator's pretraining


def check_sources(recipe: Recipe) -> str:
    """Check that the recipe's sources suit its task. Returns a line that says which they are.

    Raises:
        UserError: the task's answers are no numbers.
    """
    sources = synthetic_sources(recipe)
    wanted = [(f"negatives.{source}", "0") for source in sources]
    if recipe.discriminator.augment == "numbers":
        wanted.append(("discriminator.augment", "words or none"))
    if wanted and not isinstance(build_task(recipe.task), Arithmetic):
        key, instead = wanted[0]
        raise UserError(
            f"{key}: the answers of {recipe.task.kind} are no numbers, and these"
            f" negatives are positives with other numbers: set it to {instead}"
        )
    return (
        f"positives are also {' and '.join(sources)}" if sources else "none are made of positives"
    )


def check_rows(
    recipe: Recipe,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    rows: Callable[[], Iterable[Row]],
) -> None:
    """Check that each source can make a negative of some training question.

    ``rows`` returns an iterator over all questions; each call starts at the first.

    Raises:
        UserError: it names the source.
    """
    for wanted in synthetic_sources(recipe):
        if not any(
            source == wanted
            for row in rows()
            for _, source in synthesize_negatives(recipe, task, tokenizer, row)
        ):
            raise UserError(
                f"negatives.{wanted}: no positive of the training questions can be rewritten, as"
                " none has steps like `3 + 4 = 7` with numbers of its question, or the tokenizer"
                " lacks the new numbers: set it to 0"
            )


def synthetic_sources(recipe: Recipe) -> tuple[Source, ...]:
    """The sources that the recipe asks for."""
    return tuple(
        source for source in (Source.CORRUPTED, Source.EVOLVED) if getattr(recipe.negatives, source)
    )


def synthesize_all(
    recipe: Recipe,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    rows: Mapping[int, Row],
    *,
    round: int,
) -> dict[int, list[tuple[str, Source]]]:
    """:func:`synthesize_negatives` of each row."""
    return {
        index: synthesize_negatives(recipe, task, tokenizer, row, round=round)
        for index, row in rows.items()
    }


def synthesize_negatives(
    recipe: Recipe,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    *,
    round: int = PRETRAINING,
) -> list[tuple[str, Source]]:
    """Up to `negatives.corrupted` and `negatives.evolved` wrong rationales of a question.

    A pure function of (seed, question, round). Each ends in an answer that is neither the label nor
    a positive's; none is a text that the question has already, or has more unknown tokens than
    what it was made of. There are fewer where a question's positives do not give as many.
    """
    if not row.positives:
        return []
    known = {*row.positives, *row.negatives}
    synthetic: list[tuple[str, Source]] = []
    for source in synthetic_sources(recipe):
        alter = (
            _corrupting(task, row, row.positives) if source == Source.CORRUPTED else _evolving(row)
        )
        made = wrong_texts(
            row.positives,
            [alter],
            count=getattr(recipe.negatives, source),
            task=task,
            row=row,
            tokenizer=tokenizer,
            known=known,
            random=keyed_random(recipe.seed, source, row.question.id, round),
        )
        known.update(made)
        synthetic += [(text, source) for text in made]
    return synthetic


def balancing_numbers(
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    seed: int,
    key: Sequence[object],
) -> list[str]:
    """As many wrong texts as a question has positives more than negatives, or fewer.

    A pure function of (seed, key). Each has a wrong number, the wrong operation in a step, numbers
    that have changed places, or answers the question for other numbers.
    """
    count = len(positives) - len(negatives)
    if count <= 0:
        return []
    given = _given(row)
    alterations = (
        _corrupting(task, row, positives),
        _evolving(row),
        misoperated,
        lambda text, random: swapped(text, given, random),
    )
    return wrong_texts(
        positives,
        alterations,
        count=count,
        task=task,
        row=row,
        tokenizer=tokenizer,
        known={*positives, *negatives},
        random=keyed_random(seed, "augment numbers", *key),
    )


def wrong_texts(
    positives: Sequence[str],
    alterations: Sequence[Alteration],
    *,
    count: int,
    task: Task,
    row: Row,
    tokenizer: PreTrainedTokenizerBase,
    known: Collection[str],
    random: Random,
) -> list[str]:
    """Up to ``count`` texts outside ``known``, each a positive altered in one of the ways.

    Its answer is neither the label nor a positive's, and it has no more unknown tokens than the
    positive has.
    """
    not_wrong = {task.parse(text, row.question).answer for text in dict.fromkeys(positives)}
    not_wrong |= {row.answer, None}
    made: list[str] = []
    for _ in range(_TRIES * count):
        # one way alone draws nothing, so that a seed gives the same texts as ever
        alter = random.choice(alterations) if len(alterations) > 1 else alterations[0]
        positive = random.choice(positives)
        text = alter(positive, random)
        if (
            text is not None
            and text not in known
            and text not in made
            and task.parse(text, row.question).answer not in not_wrong
            and unknown_tokens(tokenizer, text) <= unknown_tokens(tokenizer, positive)
        ):
            made.append(text)
        if len(made) == count:
            break
    return made


def _corrupting(task: Task, row: Row, positives: Sequence[str]) -> Alteration:
    answer = task.parse(positives[0], row.question).answer  # the same in all positives
    number = Fraction(answer) if answer is not None else None
    return lambda text, random: corrupted(text, number, random)


def _evolving(row: Row) -> Alteration:
    given = _given(row)
    return lambda text, random: evolved(text, given, random)


def _given(row: Row) -> set[Fraction]:
    question = plain(row.question.question)
    return {*(value for _, _, value in find_numbers(question)), *find_number_words(question)}
