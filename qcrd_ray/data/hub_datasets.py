"""Rows of Hugging Face data sets, from the hub or from folders.

It is imported where one is read: `datasets` takes a second to import.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import nullcontext
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from qcrd_ray.data.hub import without_waiting
from qcrd_ray.data.json_lines import Line, expand_path
from qcrd_ray.data.sources import BLOCK, numbered
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Split

# What `datasets.save_to_disk` writes: of several splits, and of one.
_SAVED = ("dataset_dict.json", "state.json")


class HubSource:
    """A split of a Hugging Face data set, memory-mapped from the cache of `datasets`.

    It comes from the hub, from a folder of data files, or from a folder that `save_to_disk` wrote.
    Integers of a class label become the labels' names.

    Raises:
        UserError: the data set, its configuration, split or revision cannot be loaded; holds the
            hub's own message.
    """

    def __init__(self, split: Split):
        self.name = " ".join(filter(None, (split.dataset, split.config, split.split)))
        datasets.disable_progress_bars()  # a run has one progress line
        try:
            self._rows = _load(split)
        except UserError:
            raise
        # the hub's errors are OSErrors
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.name}: the data set cannot be loaded:"
                f" {str(error).strip() or type(error).__name__}"
            ) from error

    @property
    def fingerprint(self) -> str:
        """The library's own, which its cache goes by."""
        return self._rows._fingerprint

    def columns(self) -> list[str]:
        return self._rows.column_names

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        wanted = self._rows.select_columns(
            [column for column in self._rows.column_names if column in columns]
        )
        return numbered(wanted.with_format("arrow").iter(BLOCK), _class_names(wanted.features))


def class_names_of(schema: pa.Schema) -> dict[str, list[str]]:
    """The label names of each class-label column of an Arrow schema that `datasets` wrote."""
    return _class_names(datasets.Features.from_arrow_schema(schema))


def _class_names(features: Any) -> dict[str, list[str]]:
    """The label names of each class-label column of ``datasets.Features``, by column."""
    return {
        column: feature.names
        for column, feature in features.items()
        if isinstance(feature, datasets.ClassLabel)
    }


def _load(split: Split) -> datasets.Dataset:
    assert split.dataset is not None
    folder = expand_path(split.dataset)
    if folder.is_dir() and split.revision is not None:
        raise UserError(
            f"{split.dataset}: a folder has no revisions; leave `revision` out (it is"
            f" {split.revision!r})"
        )
    if any((folder / name).is_file() for name in _SAVED) and not split.config:
        return _split_of(split, datasets.load_from_disk(str(folder)))
    if not folder.is_dir() and (
        split.dataset.startswith((".", "~", "/", "$")) or split.dataset.count("/") > 1
    ):
        raise UserError(
            f"{split.dataset}: there is no such folder; give one, or a hub id (owner/name)"
        )
    name = str(folder) if folder.is_dir() else split.dataset
    with nullcontext() if folder.is_dir() else without_waiting():
        loaded = datasets.load_dataset(
            name, split.config, split=split.split, revision=split.revision
        )
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(
            f"{split.dataset}: it has the splits {', '.join(map(str, loaded))}: say which with"
            " `split`"
        )
    return loaded


def _split_of(split: Split, loaded: datasets.Dataset | datasets.DatasetDict) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        if split.split is not None:
            raise UserError(
                f"{split.dataset}: the folder holds one split, so leave `split` out (it is"
                f" {split.split!r})"
            )
        return loaded
    names = split.split.split("+") if split.split else []
    if not names or not set(names) <= set(loaded):
        raise UserError(
            f"{split.dataset}: it has the splits {', '.join(map(str, loaded))}: say which with"
            f" `split`, not {split.split!r}"
        )
    return datasets.concatenate_datasets([loaded[name] for name in names])
