"""Experiment trackers, if the recipe names one: the recipe, all rounds, the results, the report.

A tracker is a :class:`Sink`: MLflow (:mod:`mlflow_run`) or Weights & Biases (:mod:`wandb_run`). The
run folder remembers its run there, so a continued run goes on in it. A tracker that does not answer
costs a warning and not the training; MLflow is sent with the next round what it could not be sent
before, and Weights & Biases keeps it in files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from qcrd_ray.recipe import Recipe, TrackingRecipe
from qcrd_ray.recipe.file import flatten
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import Results, RoundMetrics
from qcrd_ray.runs.tracking import mlflow_run, wandb_run

__all__ = ["Sink", "Tracker", "check", "tracked"]

Status = Literal["FINISHED", "FAILED", "KILLED"]

log = logging.getLogger(__name__)


class Sink(Protocol):
    """One run of an experiment tracker: a new one, or the one that the run folder names."""

    NAME: ClassVar[str]

    def start(self) -> None:
        """Find or make the run. It is called until it has not failed."""
        ...

    def sent(self, objective: str) -> set[int]:
        """The steps of the rounds that earlier calls on this run folder have sent."""
        ...

    def send(self, numbers: Mapping[str, float], *, objective: str, step: int) -> None:
        """Send one round's numbers, named as in "qcrd/student/loss"."""
        ...

    def results(self, numbers: Mapping[str, float]) -> None:
        """Send numbers that belong to no step."""
        ...

    def artifact(self, path: Path) -> None:
        """Send a file."""
        ...

    def end(self, status: Status) -> None:
        """End the run."""
        ...

    def said(self, error: Exception) -> str | None:
        """The words of an error of the tracker's own, without secrets; None: it is another's."""
        ...


def check(recipe: TrackingRecipe) -> str:
    """Where metrics will go, in words, after checking that the tracker is installed and answers.

    Raises:
        UserError: its package is not installed, or nothing usable answers there.
    """
    places = ["metrics.jsonl and TensorBoard in the run folder"]
    if recipe.mlflow is not None:
        places.append(mlflow_run.check(recipe.mlflow, recipe.experiment))
    if recipe.wandb is not None:
        places.append(wandb_run.check(recipe.wandb))
    return "; ".join(places)


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder) -> Iterator[Tracker]:
    """Yield a tracker. Its runs end as the block does: finished, failed or killed."""
    tracker = Tracker(recipe, folder)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """The trackers that the recipe names. Without one it does nothing."""

    def __init__(self, recipe: Recipe, folder: RunFolder):
        self._places: list[_Place] = []
        if recipe.tracking.mlflow is not None:
            self._places.append(_Place(mlflow_run.MLflowRun(recipe, folder)))
        if recipe.tracking.wandb is not None:
            self._places.append(_Place(wandb_run.WandbRun(recipe, folder)))

    def rounds(self, objective: str, rows: Sequence[RoundMetrics]) -> None:
        """Send the rounds that have not been sent. ``rows``: all rounds of the training so far."""
        for place in self._places:
            place.rounds(objective, rows)

    def results(self, results: Results) -> None:
        """Send accuracies and the ends of their intervals as "test/student/rationale/accuracy"."""
        numbers: dict[str, float] = {
            f"{row['split']}/{row['name']}/{row['head']}/{name}": row[name]
            for row in results["rows"]
            for name in ("accuracy", "low", "high")
        }
        self._call(lambda sink: sink.results(numbers))

    def artifact(self, path: Path) -> None:
        """Send a file."""
        self._call(lambda sink: sink.artifact(path))

    def end(self, status: Status) -> None:
        """End the runs."""
        self._call(lambda sink: sink.end(status))

    def _call(self, call: Callable[[Sink], object]) -> None:
        for place in self._places:
            place.call(call)


class _Place:
    """A sink whose errors are logged, and the rounds that it has been sent."""

    def __init__(self, sink: Sink):
        self._sink, self._started = sink, False
        self._sent: dict[str, set[int]] = {}
        self.call(lambda sink: None)

    def call(self, call: Callable[[Sink], object]) -> None:
        try:
            if not self._started:
                self._sink.start()
                self._started = True
            call(self._sink)
        except Exception as error:
            if (said := self._sink.said(error)) is None:
                raise
            log.warning("%s: %s", self._sink.NAME, said)

    def rounds(self, objective: str, rows: Sequence[RoundMetrics]) -> None:
        self.call(lambda sink: self._rounds(sink, objective, rows))

    def _rounds(self, sink: Sink, objective: str, rows: Sequence[RoundMetrics]) -> None:
        if objective not in self._sent:
            self._sent[objective] = sink.sent(objective)
        for row in rows:
            if row["step"] not in self._sent[objective]:
                numbers = {
                    f"{objective}/{name.replace('.', '/')}": float(value)
                    for name, value in flatten(dict(row)).items()
                }
                sink.send(numbers, objective=objective, step=row["step"])
                self._sent[objective].add(row["step"])
