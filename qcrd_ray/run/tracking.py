"""MLflow, where the recipe asks for it: the resolved recipe, every round of every training, the
results and the report in one run.

The run folder remembers which MLflow run is its own, so a run that goes on continues there. A
server that does not answer meanwhile
costs a warning and not the training: what could not be sent is sent with the next round.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, TrackingRecipe
from qcrd_ray.recipe.file import flatten
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.run.results import Results, RoundMetrics
from qcrd_ray.run.storage import is_uri, shown

RUN_FILE = "mlflow.json"
_PER_BATCH = 100  # params in one request: MLflow's limit
_PARAM_CHARS = 6_000  # of one value: MLflow's limit
# MLflow's own patience is minutes a call, and here the next round tries again anyway; its lines
# would break into the progress line.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

log = logging.getLogger(__name__)


def check(recipe: TrackingRecipe) -> str:
    """Whether what is asked for is installed and answers.

    Raises:
        UserError: mlflow is not installed, the URI holds a password, or nothing usable answers
            there.
    """
    if recipe.mlflow is None:
        return "metrics.jsonl and TensorBoard in the run folder"
    if find_spec("mlflow") is None:
        raise UserError(
            "tracking.mlflow is set and mlflow is not installed: `pip install mlflow-skinny`, or"
            " take the key out"
        )
    if urlsplit(recipe.mlflow).password is not None:
        raise UserError(
            "tracking.mlflow holds a password, which would stand in the run folder: put it into the"
            " environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or"
            " MLFLOW_TRACKING_TOKEN)"
        )
    from mlflow.exceptions import MlflowException

    try:
        _client(recipe).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise UserError(f"tracking.mlflow: {recipe.mlflow} cannot be used: {error}") from error
    return f"MLflow at {recipe.mlflow}, experiment {recipe.experiment}"


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder) -> Iterator[Tracker]:
    """A tracker for the block; its MLflow run ends as the block does. Without tracking.mlflow the
    tracker does nothing.
    """
    tracker = Tracker(recipe, folder)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """One MLflow run. Making one begins it, or goes on with the one that the run folder names."""

    def __init__(self, recipe: Recipe, folder: RunFolder):
        self._recipe, self._folder = recipe, folder
        self._client = None if recipe.tracking.mlflow is None else _client(recipe.tracking)
        self._run: str | None = None
        self._sent: dict[str, set[int]] = {}
        self._send(lambda: None)

    def rounds(self, objective: str, rows: Sequence[RoundMetrics]) -> None:
        """Send the rounds of a training that have not been sent; ``rows`` are all of them so far,
        as in metrics.jsonl.
        """
        self._send(lambda: self._send_rounds(objective, rows))

    def results(self, results: Results) -> None:
        """Send the evaluation's accuracies with the ends of their intervals, as
        test/student/rationale/accuracy.
        """
        named = {
            f"{row['split']}/{row['name'].replace(',', '')}/{row['head']}/{name}": row[name]
            for row in results["rows"]
            for name in ("accuracy", "low", "high")
        }
        self._send(lambda: self._log(named, step=0))

    def artifact(self, path: Path) -> None:
        """Send a file."""
        self._send(lambda: self._client.log_artifact(self._run, str(path)))

    def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""
        self._send(lambda: self._client.set_terminated(self._run, status))

    def _send(self, call: Callable[[], Any]) -> None:
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            if self._run is None:
                self._begin()
            call()
        except (MlflowException, OSError) as error:
            log.warning("MLflow at %s: %s", self._recipe.tracking.mlflow, error)

    def _begin(self) -> None:
        file = self._folder.root / RUN_FILE
        known = json.loads(file.read_text())["run_id"] if file.exists() else None
        if known is None or not self._resume(known):
            run = self._create()
            write_text(
                file,
                json.dumps(
                    {"experiment": self._recipe.tracking.experiment, "run_id": run}, indent=2
                )
                + "\n",
            )
            self._run = run

    def _resume(self, run: str) -> bool:
        """Go on with a run, if the store has it: the recipe may name another store than before."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        self._run = run
        return True

    def _create(self) -> str:
        from mlflow.entities import Param

        name = self._recipe.tracking.experiment
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        call = describe_call(self._recipe.seed)
        tags = {
            "qcrd_ray": call["qcrd_ray"],
            "run_folder": str(self._folder.root),
            "mlflow.source.git.commit": call["commit"] or "",
        }
        run = self._client.create_run(
            experiment_id, run_name=self._recipe.name, tags=tags
        ).info.run_id
        params = [
            Param(key, str(value)[:_PARAM_CHARS]) for key, value in _params(self._recipe).items()
        ]
        for start in range(0, len(params), _PER_BATCH):
            self._client.log_batch(run, params=params[start : start + _PER_BATCH])
        return run

    def _send_rounds(self, objective: str, rows: Sequence[RoundMetrics]) -> None:
        sent = self._sent.get(objective)
        if sent is None:  # what an earlier call on this run folder sent
            history = self._client.get_metric_history(self._run, f"{objective}/round")
            sent = self._sent[objective] = {metric.step for metric in history}
        for row in rows:
            if row["step"] not in sent:
                numbers = {
                    f"{objective}/{name.replace('.', '/')}": value
                    for name, value in flatten(dict(row)).items()
                }
                self._log(numbers, step=row["step"])
                sent.add(row["step"])

    def _log(self, numbers: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run,
            metrics=[Metric(name, float(value), now, step) for name, value in numbers.items()],
        )


def _client(recipe: TrackingRecipe):
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=recipe.mlflow)


def _params(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe, flat, without what may be secret: the environment of the teacher's
    replicas, and a store's credentials.
    """
    tree = recipe.model_dump(mode="json", by_alias=True)
    tree["run"] = shown(recipe.run) if is_uri(recipe.run) else recipe.run
    tree["teacher"].pop("env", None)
    return flatten(tree)
