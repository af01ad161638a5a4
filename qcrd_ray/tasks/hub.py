"""Hugging Face data sets: from the hub, from a folder of data files, or from one that `save_to_disk` wrote. Never code from a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import datasets
from datasets.exceptions import DatasetsError

from qcrd_ray.errors import UserError
from qcrd_ray.json_lines import Line, expand_path
from qcrd_ray.recipe import Split
from qcrd_ray.tasks.sources import BLOCK, class_names, numbered

_WRITTEN = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves of several splits, and of one


class HubSource:
    """A split of a data set, memory-mapped from the cache of `datasets`; integers of a class label become their names.

    Raises:
        UserError: in making one: the data set, its configuration, split or revision cannot be had; the hub's own words say why.
    """

    def __init__(self, split: Split):
        self.name = " ".join(filter(None, (split.dataset, split.config, split.split)))
        datasets.disable_progress_bars()  # one progress line: ours
        try:
            self._rows = _load(split)
        except UserError:
            raise
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:  # the hub's errors are OSErrors
            raise UserError(f"{self.name}: the data set cannot be loaded: {str(error).strip() or type(error).__name__}") from error

    def columns(self) -> list[str]:
        return self._rows.column_names

    def rows(self, columns: Collection[str]) -> Iterator[Line]:
        wanted = self._rows.select_columns([column for column in self._rows.column_names if column in columns])
        return numbered(wanted.with_format("arrow").iter(BLOCK), class_names(wanted.features))


def _load(split: Split) -> datasets.Dataset:
    folder = expand_path(split.dataset)
    if folder.is_dir() and split.revision is not None:
        raise UserError(f"{split.dataset}: a folder has no revisions; leave `revision` out (it is {split.revision!r})")
    if any((folder / name).is_file() for name in _WRITTEN) and not split.config:
        return _of_folder(split, datasets.load_from_disk(str(folder)))
    if not folder.is_dir() and (split.dataset.startswith((".", "~", "/", "$")) or split.dataset.count("/") > 1):
        raise UserError(f"{split.dataset}: there is no such folder; give one, or a hub id (owner/name)")
    name = str(folder) if folder.is_dir() else split.dataset
    loaded = datasets.load_dataset(name, split.config, split=split.split, revision=split.revision)
    if isinstance(loaded, datasets.DatasetDict):
        raise UserError(f"{split.dataset}: it has the splits {', '.join(loaded)}: say which with `split`")
    return loaded


def _of_folder(split: Split, loaded: datasets.Dataset | datasets.DatasetDict) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        if split.split is not None:
            raise UserError(f"{split.dataset}: the folder holds one split, so leave `split` out (it is {split.split!r})")
        return loaded
    names = split.split.split("+") if split.split else []
    if not names or not set(names) <= set(loaded):
        raise UserError(f"{split.dataset}: it has the splits {', '.join(loaded)}: say which with `split`, not {split.split!r}")
    return datasets.concatenate_datasets([loaded[name] for name in names])
