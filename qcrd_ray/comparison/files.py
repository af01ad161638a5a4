"""Where a comparison's files lie, and the keys in their names, which hash what a file depends on.

compare/<share>/table.md, .json           the newest table of that share of the rationales
compare/<share>/tables/<key>.md, .json    the same, kept; other methods or seeds have another
                                          key
compare/<share>/data-<key>/               what methods train on, shared by methods of one key
compare/<share>/<method>-<key>/<seed>/    a trial: see trials.py
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.table import markdown
from qcrd_ray.data.records import Question
from qcrd_ray.recipe.file import flatten, within
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import OPERATIONAL, RunFolder
from qcrd_ray.training.trainer import PREPARED_BY


def folder_of(folder: RunFolder, fraction: float) -> Path:
    """Where a comparison on that fraction of the rationales lies."""
    return folder.root / "compare" / ("all" if fraction == 1.0 else f"{fraction:g}")


def kept_table(
    folder: RunFolder, methods: Sequence[Method], *, seeds: int, fraction: float
) -> Path:
    """The Markdown file of a kept table, which only the same methods and seeds write again."""
    return (
        folder_of(folder, fraction)
        / "tables"
        / f"{len(methods)}-methods-{seeds}-seeds-{methods_key(methods)}.md"
    )


def write_tables(results: dict[str, Any], folder: RunFolder, methods: Sequence[Method]) -> None:
    """Write the results of ``methods`` as JSON and Markdown: the newest and the kept table."""
    seeds, fraction = results["seeds"], results["fraction"]
    for file in (
        kept_table(folder, methods, seeds=seeds, fraction=fraction),
        folder_of(folder, fraction) / "table.md",
    ):
        write_text(file.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
        write_text(file, markdown(results))


# --- Keys ---


def method_key(method: Method) -> str:
    """The key of all settings that a method's numbers depend on, besides the number of the seed."""
    return _key(
        _kept(method, lambda key: not within(key, OPERATIONAL))
        | ({"shift": method.shift} if method.shift else {})
    )


def data_key(method: Method) -> str:
    """The key of what a method's prepared training set depends on, besides the rationales."""
    return _key(_kept(method, lambda key: within(key, PREPARED_BY)))


def questions_key(questions: Sequence[Question]) -> str:
    """The key of a split's questions and answers."""
    return _key(
        [
            (question.id, question.question, question.choices, question.answer)
            for question in questions
        ]
    )


def methods_key(methods: Sequence[Method]) -> str:
    """The key of methods under the names that a table gives them."""
    return _key([(method.name, method_key(method)) for method in methods])


def _kept(method: Method, keeps: Callable[[str], bool]) -> dict[str, Any]:
    keys = flatten(method.recipe.model_dump(mode="json", by_alias=True))
    # its data stands in a part of the recipe on which no other method depends
    own = ["compare.control"] if method.control else []
    return {key: value for key, value in keys.items() if keeps(key) or within(key, own)}


def _key(content: Any) -> str:
    """Eight hexadecimal digits that change whenever ``content`` does."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
