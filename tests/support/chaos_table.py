"""The table of all trials: a row for each fault, printed, and kept as lines of JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from chaos_trial import Outcome, Reference

COLUMNS = (
    *("stage", "fault", "trials", "survived", "passes", "equal"),
    *("stopped_s", "gone_s", "recovered_s", "unbroken_s"),
)
WORST = ("passes", "distance", "stopped_s", "gone_s", "recovered_s")


class Table:
    """The trials of one call. The file is written after each; rows of other faults stay in it."""

    def __init__(self, file: Path):
        self.file = file
        self._trials: dict[tuple[str, str], list[Outcome]] = {}
        self._unbroken: dict[str, float] = {}

    def add(self, outcome: Outcome, reference: Reference) -> None:
        self._trials.setdefault((outcome.stage, outcome.fault), []).append(outcome)
        self._unbroken[outcome.stage] = round(reference[outcome.stage].seconds, 1)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        by_fault = {
            (row["stage"], row["fault"]): row for row in [*map(json.loads, lines), *self.rows()]
        }
        self.file.write_text("".join(json.dumps(row) + "\n" for row in by_fault.values()))

    def rows(self) -> list[dict]:
        """A row a fault: sums, the worst of all trials, and why some were not survived."""
        return [
            self._row(*key, [asdict(each) for each in self._trials[key]]) for key in self._trials
        ]

    def text(self) -> str:
        """The rows as a Markdown table."""
        cells = [
            ["-" if row[name] is None else str(row[name]) for name in COLUMNS]
            for row in self.rows()
        ]
        lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _row(self, stage: str, fault: str, trials: list[dict]) -> dict:
        known = {name: [each[name] for each in trials if each[name] is not None] for name in WORST}
        return {
            "stage": stage,
            "fault": fault,
            "trials": len(trials),
            "survived": sum(trial["survived"] for trial in trials),
            "equal": sum(trial["equal"] for trial in trials),
            **{name: max(values, default=None) for name, values in known.items()},
            "unbroken_s": self._unbroken[stage],
            "at": [trial["at"] for trial in trials],
            "why": [trial["why"][:600] for trial in trials if trial["why"]],
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load"
            f" {os.getloadavg()[1]:.0f}",
        }
