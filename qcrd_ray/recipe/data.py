"""``data``: where the questions of each split come from, and which column of theirs is which field
of ours.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from qcrd_ray.recipe.base import Count, Section


class Split(Section):
    """Where the questions of one split come from: a file, a Hugging Face data set, or the task's
    own generator.
    """

    path: str | None = Field(
        None,
        description=(
            "a .jsonl, .csv, .tsv or .parquet file; ${VARIABLES} of the environment are expanded"
        ),
    )
    dataset: str | None = Field(None, description="a Hugging Face data set: a hub id, or a folder")
    config: str | None = Field(
        None, description="which configuration of the data set; none: its only or default one"
    )
    split: str | None = Field(
        None, description="which of the data set's own splits: train, or several as train+test"
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of the data set on the hub"
    )
    rows: tuple[int, int] | None = Field(
        None, description="[first, past the last] of the rows, after the shuffle"
    )
    shuffle: int | None = Field(
        None,
        description="seed to shuffle the rows with before `rows` is taken; none: as they stand",
    )
    generate: Count | None = Field(
        None, description="how many questions the task's generator makes"
    )
    seed: int = Field(0, description="the generator's seed")
    kind: str | None = Field(
        None,
        description="the generator's kind of question: word_problems has `seen` and `held_out`",
    )

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
        """The file or data set without the folders of the machine that it is read on; None: the
        questions are generated.
        """
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


def _spelt(values: Any) -> Any:
    """YAML's 0 and true as the texts that they are looked up by."""
    if not isinstance(values, dict):
        return values
    return {
        str(key).lower() if isinstance(key, bool) else str(key): value
        for key, value in values.items()
    }


class DataRecipe(Section):
    """The splits. ``columns`` says where our fields are found in a row: a column (`Body`), a path
    into one (`choices.text`,
    `answers.0`), a text around several (`"{Body} {Question}"`), or a list of these.
    """

    train: Split
    validation: Split
    test: Split
    held_out: Split | None = Field(
        None, description="a second, harder test split, reported beside `test`"
    )
    columns: dict[
        Literal["id", "question", "choices", "answer", "rationale"], str | tuple[str, ...]
    ] = Field({})
    values: Annotated[dict[str, str], BeforeValidator(_spelt)] = Field(
        {},
        description=(
            "what the answer column's values mean: {0: entailment, 1: neutral, 2: contradiction};"
            " class names are known"
        ),
    )
