"""A run's numbers in Ray's metrics while it runs, for the dashboard and Prometheus.

Set on the driver, and tagged with run and stage:

    qcrd_rows              counter  rows that ended, by `outcome` (accepted, no_consensus, unparsed,
                                    failed, rejected_input)
    qcrd_teacher_tokens    counter  tokens of the teacher, by `direction` (in, out)
    qcrd_teacher_retries   counter  requests that were tried again
    qcrd_train_step        gauge    optimizer steps done
    qcrd_train_loss        gauge    the last round's mean losses, by `term` (loss, prediction,
                                    l_pos, l_neg)
    qcrd_train_active      gauge    share of the last round's negatives whose term is active
    qcrd_train_validation  gauge    accuracy of the last validation, by `head` (label, rationale,
                                    mean)

Ray puts `ray_` before each name and `_total` behind a counter's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ray.util import metrics

from qcrd_ray.data.records import Outcome
from qcrd_ray.runs.results import RoundMetrics

LOSSES = ("loss", "prediction", "l_pos", "l_neg")


class RationaleMetrics:
    """Counters of the rationales stage."""

    def __init__(self, run: str):
        self._tags = {"run": run, "stage": "rationales"}
        self._rows = metrics.Counter(
            "qcrd_rows", "Rows that ended, by outcome.", ("run", "stage", "outcome")
        )
        self._tokens = metrics.Counter(
            "qcrd_teacher_tokens",
            "Tokens of the teacher, by direction.",
            ("run", "stage", "direction"),
        )
        self._retries = metrics.Counter(
            "qcrd_teacher_retries", "Requests that were tried again.", ("run", "stage")
        )
        self._last: Counter[str] = Counter()

    def update(self, totals: Mapping[str, int]) -> None:
        """Raise the counters to ``totals``, the stage's counts so far.

        Totals below the last ones have begun again at 0: the actor that counts was restarted.
        """
        now = Counter(totals)
        rise = (
            now - self._last
            if all(now[name] >= count for name, count in self._last.items())
            else now
        )
        for outcome in Outcome:
            self._increase(self._rows, rise[outcome.value], outcome=outcome.value)
        for direction in ("in", "out"):
            self._increase(self._tokens, rise[f"tokens_{direction}"], direction=direction)
        self._increase(self._retries, rise["retries"])
        self._last = now

    def _increase(self, counter: metrics.Counter, by: int, **tags: str) -> None:
        if by:
            counter.inc(by, tags={**self._tags, **tags})


class TrainingMetrics:
    """Gauges of one training. Its stage is called after the objective."""

    def __init__(self, run: str, objective: str):
        self._tags = {"run": run, "stage": objective}
        self._step = metrics.Gauge("qcrd_train_step", "Optimizer steps done.", ("run", "stage"))
        self._loss = metrics.Gauge(
            "qcrd_train_loss", "Mean losses of the last round.", ("run", "stage", "term")
        )
        self._active = metrics.Gauge(
            "qcrd_train_active",
            "Share of the last round's negatives that are active.",
            ("run", "stage"),
        )
        self._validation = metrics.Gauge(
            "qcrd_train_validation",
            "Right answers at the last validation.",
            ("run", "stage", "head"),
        )

    def step(self, done: int) -> None:
        """Set the steps done."""
        self._step.set(done, tags=self._tags)

    def round(self, row: RoundMetrics) -> None:
        """Set the gauges to a finished round's numbers."""
        student = row["student"]
        for term in LOSSES:
            if term in student:
                self._loss.set(student[term], tags={**self._tags, "term": term})
        if "active_fraction" in student:
            self._active.set(student["active_fraction"], tags=self._tags)
        for head, accuracy in row.get("validation", {}).items():
            self._validation.set(accuracy, tags={**self._tags, "head": head})
