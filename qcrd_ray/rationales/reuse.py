"""`data.rationales`: what a teacher has answered in another run folder is not asked again.

The rows are taken over as they are. The next step of generation keeps those whose request is the
one that this recipe would send, by its id, and asks the others; so nothing wrong is reused. Votes
are counted anew where `vote` has changed: what was paid for are the texts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Completion, Outcome, Question
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.journal import read_journal
from qcrd_ray.rationales.store import JOURNAL, RationaleStore
from qcrd_ray.rationales.vote import hold_vote
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import flatten, load_recipe, within
from qcrd_ray.runs.files import atomic_folder, write_table, write_text
from qcrd_ray.runs.folder import ASKED_BY, OPERATIONAL, RunFolder
from qcrd_ray.runs.storage import is_uri

# What may differ: a row is found by its question, is voted on again, and a recording is known by
# its content.
_FREE = ("data", "vote", "teacher.path", *OPERATIONAL)
_NAMES = [field.name for field in fields(Completion)]

log = logging.getLogger(__name__)


def check_reuse(recipe: Recipe, questions: Iterable[Question]) -> str:
    """Say how many of the training ``questions`` have been answered in `data.rationales`.

    Raises:
        UserError: it is no run folder with rationales, its teacher was asked otherwise, or it holds
            an answer to none of the questions.
    """
    if recipe.data.rationales is None:
        return "none are taken over"
    source = _source(recipe)
    answered = {
        (row["question_id"], row["question"])
        for table in _tables(RationaleStore(source.rationales("train")))
        for row in table.select(["question_id", "question", "outcome"]).to_pylist()
        if row["outcome"] != Outcome.FAILED
    }
    asked = [(question.id, question.question) for question in questions]
    found = sum(each in answered for each in asked)
    if not found:
        raise UserError(
            f"data.rationales: {source.root} holds no answer to any of the {len(asked):,} training"
            " questions; name the run folder of these questions, or leave it out"
        )
    return f"{found:,} of {len(asked):,} questions are answered in {source.root}"


def take_over(recipe: Recipe, folder: RunFolder, splits: Sequence[str]) -> None:
    """Copy the rows of `data.rationales` to ``folder``, for the splits that have none there.

    Raises:
        UserError: see :func:`check_reuse`.
    """
    if recipe.data.rationales is None:
        return
    source = _source(recipe)
    was = load_recipe(source.recipe)
    for split in splits:
        old, new = (
            RationaleStore(source.rationales(split)),
            RationaleStore(folder.rationales(split)),
        )
        if new.shards is not None or old.shards is None:
            continue
        rows = 0
        with atomic_folder(new.rows) as writing:
            for file in old.files():
                table = _read(file)
                if was.vote != recipe.vote:
                    voted = [_voted(row, recipe) for row in table.to_pylist()]
                    table = pa.Table.from_pylist(voted, schema=RATIONALE_SET_SCHEMA)
                _write(table, writing / file.relative_to(old.rows))
                rows += table.num_rows
        log.info("%s: %d answered questions taken over from %s", split, rows, source.root)


def _source(recipe: Recipe) -> RunFolder:
    """The run folder that `data.rationales` names, checked."""
    name = recipe.data.rationales
    assert name is not None
    if is_uri(name):
        raise UserError(f"data.rationales: {name}: give a folder of a disk; copy it there first")
    source = RunFolder(Path(name).expanduser().absolute())
    if not source.recipe.is_file() or RationaleStore(source.rationales("train")).shards is None:
        raise UserError(
            f"data.rationales: {source.root} is no run folder with rationales of a training split"
        )
    was = flatten(load_recipe(source.recipe).model_dump(mode="json", by_alias=True))
    now = flatten(recipe.model_dump(mode="json", by_alias=True))
    changed = [
        f"{key}: {was.get(key)!r} there, {now.get(key)!r} here"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key) and within(key, ASKED_BY) and not within(key, _FREE)
    ]
    if changed:
        raise UserError(
            f"data.rationales: the teacher was asked otherwise in {source.root}:\n"
            + "\n".join(f"  {each}" for each in changed[:10])
            + "\nAsk as it was asked there, or leave data.rationales out"
        )
    return source


def _tables(store: RationaleStore) -> Iterator[pa.Table]:
    yield from map(_read, store.files())


def _read(file: Path) -> pa.Table:
    if file.suffix == JOURNAL:
        return read_journal(file)
    return pq.read_table(file, schema=RATIONALE_SET_SCHEMA)


def _write(table: pa.Table, file: Path) -> None:
    if file.suffix == JOURNAL:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
        write_text(file, "".join(lines))
    else:
        write_table(table, file)


def _voted(row: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The row with the vote that ``recipe`` holds over its texts, all of which had come back."""
    if row["outcome"] in (Outcome.FAILED, Outcome.REJECTED_INPUT):
        return row
    completions = [
        Completion(**{name: each[name] for name in _NAMES if each[name] is not None})
        for each in row["completions"]
    ]
    # a sample with an answer abstained by the old vote's rules alone
    completions = [
        each if each.answer is None else replace(each, reason="") for each in completions
    ]
    result = hold_vote(completions, k=len(completions), recipe=recipe.vote)
    return row | {
        "completions": [
            {name: getattr(each, name) for name in _NAMES} for each in result.completions
        ],
        "outcome": result.outcome,
        "reason": result.reason,
        "vote": result.vote,
        "vote_share": result.share,
    }
