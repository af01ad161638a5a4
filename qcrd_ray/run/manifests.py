"""What the manifest of a training set says about texts that were cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcrd_ray.recipe import StudentRecipe


def truncation_counts(manifest: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(cut, all) of the inputs and of the targets, from a training set's manifest. All methods read
    the same file, and what any of them reads counts: a question is two inputs, one for each head; a
    rationale is one target, however many methods learn it.
    """
    # one of an older version has no such counts
    manifest = {"others": 0, "truncated_others": 0, **manifest}
    targets = {
        "labels": "labelled",
        "positives": "positives",
        "negatives": "negatives",
        "others": "others",
    }
    return {
        "inputs": (manifest["truncated_inputs"], 2 * manifest["questions"]),
        "targets": (
            sum(manifest[f"truncated_{name}"] for name in targets),
            sum(manifest[name] for name in targets.values()),
        ),
    }


def truncation_note(manifest: Mapping[str, Any], student: StudentRecipe) -> str:
    """What was cut, by which key; "" where nothing was."""
    limits = {
        "inputs": ("max_input_tokens", student.max_input_tokens),
        "targets": ("max_target_tokens", student.max_target_tokens),
    }
    told = [
        f"{cut:,} of {total:,} {name} of the training set were cut at student.{limits[name][0]}"
        f" ({limits[name][1]:,})"
        for name, (cut, total) in truncation_counts(manifest).items()
        if cut
    ]
    return "; ".join(told)
