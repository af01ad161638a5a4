"""What stands over the tables of a comparison: how to make them again, and what they are to be read as.

A file of results can be older than a key of theirs: what it does not say is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qcrd_ray.run_folder import command_text

JUDGED = (
    "AUCs are of the last round, on rationales of training questions that the discriminator has just learnt from, and tell nothing of how "
    "it judges others. `AUC teacher`: the teacher's rationales that agree with the vote against its minority; `AUC within question`: the "
    "same, question by question; `AUC student`: the student's samples that are right against those that are wrong.\n"
)


def how_made(results: Mapping[str, Any]) -> list[str]:
    """The command, and which labels the methods were trained on."""
    parts = []
    if "command" in results["call"]:
        parts.append(f"```bash\n{command_text(results['call'])}\n```\n")
    if methods := results.get("methods"):
        parts.append(
            f"Labels (`objective.labels`, `--labels`): {_grouped({name: each['objective']['labels'] for name, each in methods.items()})}.\n"
        )
    return parts


def heading(measured: Mapping[str, Any]) -> str:
    """Which split and head a table is of, and what its numbers are means of."""
    size = next(iter(measured["means"].values()))  # one for all methods
    return f"## {measured['split']}, {measured['head']} head: {size['questions']:,} questions, {size['seeds']} seeds\n"


def how_chosen(results: Mapping[str, Any]) -> list[str]:
    """By which head the checkpoints were chosen; for the table of a head that may not be the one."""
    chosen = results.get("chosen_by")
    return [f"Checkpoints were chosen (`train.validate.choose_by`) by: {_grouped(chosen)}.\n"] if chosen else []


def _grouped(values: Mapping[str, str]) -> str:
    """{"a": "x", "b": "x", "c": "y"} -> "x (a, b), y (c)"; one value for all needs no names."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return ", ".join(value if len(names) == 1 else f"{value} ({', '.join(several)})" for value, several in names.items())
