"""Where the time and the tokens of a run went, from what each stage wrote down about itself."""

from __future__ import annotations

import json
from dataclasses import dataclass

from qcrd_ray.report.facts.learning import Training
from qcrd_ray.run_folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work. ``tokens`` are those that the teacher read and wrote, or that the student's steps read; None: nobody counted."""

    stage: str
    part: str
    seconds: float
    tokens_in: int | None = None
    tokens_out: int | None = None


def stage_seconds(folder: RunFolder) -> dict[str, float]:
    """Wall-clock seconds of each stage of the last whole run; {}: the stages were run one by one."""
    return json.loads(folder.seconds.read_text()) if folder.seconds.exists() else {}


def work(folder: RunFolder, trainings: list[Training]) -> list[Work]:
    """Asking by split (all runs that asked), and every part of each training, summed over its rounds."""
    found = []
    for manifest in sorted(folder.root.glob("rationales/*/manifest.json")):
        calls = json.loads(manifest.read_text())["calls"]
        tokens = {name: sum(call[name] for call in calls) for name in ("tokens_in", "tokens_out")}
        found.append(
            Work(stage="rationales", part=f"asking {manifest.parent.name}", seconds=sum(call["seconds"] for call in calls), **tokens)
        )
    for training in trainings:
        parts: dict[str, float] = {}
        for row in training.rounds:
            for part, value in row["seconds"].items():
                parts[part] = parts.get(part, 0.0) + value
        read = sum(row["tokens"] for row in training.rounds)
        found += [
            Work(stage=training.objective, part=part, seconds=value, tokens_in=read if part == "student" else None)
            for part, value in parts.items()
        ]
    return found
