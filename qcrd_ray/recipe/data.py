"""``data``: where the questions of each split come from, and which column is which field."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from qcrd_ray.recipe.base import Count, Section


class Split(Section):
    """Where the questions of one split come from.

    That is a file, a Hugging Face data set, or the task's own generator: give exactly one of
    `path`, `dataset` and `generate`.
    """

    path: str | None = None
    """A .jsonl, .json (a list), .csv, .tsv or .parquet file; ${VARIABLES} of the environment are
    filled in.
    """
    dataset: str | None = None
    """A Hugging Face data set: a hub id (owner/name), or a folder."""
    config: str | None = None
    """The data set's configuration; null: its only or default one."""
    split: str | None = None
    """The data set's own split: train, or several as train+test."""
    revision: str | None = None
    """Branch, tag or commit of the data set on the hub; null: the newest."""
    rows: tuple[int, int] | None = None
    """Take these rows alone: [first, past the last], after the shuffle."""
    shuffle: int | None = None
    """Seed to shuffle the rows with, before `rows` is taken; null: no shuffle."""
    generate: Count | None = None
    """How many questions the task's generator makes (word_problems)."""
    seed: int = 0
    """The generator's seed; splits whose seeds differ modulo 8 share no question."""
    kind: str | None = None
    """The generator's kind of question: word_problems has `seen` and `held_out`."""

    @model_validator(mode="after")
    def _one_source(self):
        if sum(source is not None for source in (self.path, self.dataset, self.generate)) != 1:
            raise ValueError(
                "give exactly one of `path` (a file), `dataset` (of Hugging Face) and `generate`"
                " (how many questions to make)"
            )
        if self.dataset is None and (
            stray := [
                key for key in ("config", "split", "revision") if getattr(self, key) is not None
            ]
        ):
            raise ValueError(f"{', '.join(stray)}: only a `dataset` has that")
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(
                "rows must be [first, past the last] with 0 <= first < past the last, not"
                f" {list(self.rows)}"
            )
        return self

    @property
    def origin(self) -> str | None:
        """The file's or data set's name without its folders; None for generated questions."""
        if self.path is not None:
            return PurePath(self.path).name
        if self.dataset is None:
            return None
        local = self.dataset.startswith(("/", ".", "~", "$"))
        return " ".join(
            filter(
                None,
                (PurePath(self.dataset).name if local else self.dataset, self.config, self.split),
            )
        )


def _keys_as_text(values: Any) -> Any:
    """Turn YAML's 0 and true into "0" and "true", as the answers are spelt when looked up."""
    if not isinstance(values, dict):
        return values
    return {
        str(key).lower() if isinstance(key, bool) else str(key): value
        for key, value in values.items()
    }


class DataRecipe(Section):
    """The questions of each split, and how their rows are read.

    `columns` says where the fields of a question are found in a row: a column (`Body`), a path into
    one (`choices.text`, `answers.0`), a text around several (`"{Body} {Question}"`), or a list of
    these.
    """

    train: Split
    """The questions that the teacher explains."""
    validation: Split
    """Questions that choose the best checkpoint."""
    test: Split
    """Questions that the final accuracy is measured on."""
    held_out: Split | None = None
    """A second, harder test split, reported beside `test`."""
    unlabelled: Split | None = None
    """Questions that the student answers for itself in `self_training`; answers are not read."""
    rationales: str | None = None
    """Another run folder: what its teacher has answered to the same requests is taken over, and not
    asked again.
    """
    columns: dict[
        Literal["id", "question", "choices", "answer", "rationale"], str | tuple[str, ...]
    ] = Field(default={})
    """Where each field is found, if not in a column of its name: {question: Body}."""
    values: Annotated[dict[str, str], BeforeValidator(_keys_as_text)] = Field(default={})
    """What the answer column's values mean: {0: entailment, 1: neutral, 2: contradiction}. The
    names of a data set's class labels are known without.
    """
