"""Where a comparison's tables lie:

compare/<share>/table.md, .json         the newest of that share of the rationales (all, 0.25 ...)
compare/<share>/tables/<key>.md, .json  the same, kept: a call with other methods or seeds has
                                        another key
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qcrd_ray.comparison.fingerprints import methods_key
from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.table import markdown
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import RunFolder


def folder_of(folder: RunFolder, fraction: float) -> Path:
    """Where a comparison on that fraction of the rationales lies."""
    return folder.root / "compare" / ("all" if fraction == 1.0 else f"{fraction:g}")


def kept_table(
    folder: RunFolder, methods: Sequence[Method], *, seeds: int, fraction: float
) -> Path:
    """The Markdown file of a table, which no comparison of other methods, with other keys, or of
    other seeds writes over.
    """
    return (
        folder_of(folder, fraction)
        / "tables"
        / f"{len(methods)}-methods-{seeds}-seeds-{methods_key(methods)}.md"
    )


def write_tables(results: dict[str, Any], folder: RunFolder, methods: Sequence[Method]) -> None:
    """Write the results of ``methods`` as JSON and as Markdown, as the newest table and as the one
    that is kept.
    """
    seeds, fraction = results["seeds"], results["fraction"]
    for file in (
        kept_table(folder, methods, seeds=seeds, fraction=fraction),
        folder_of(folder, fraction) / "table.md",
    ):
        write_text(file.with_suffix(".json"), json.dumps(results, indent=2) + "\n")
        write_text(file, markdown(results))
