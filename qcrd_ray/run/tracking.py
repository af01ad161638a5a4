"""MLflow, if the recipe names a server: the recipe, all rounds, the results and the report.

The run folder remembers its MLflow run (mlflow.json), so a continued run goes on there. A server
that does not answer costs a warning and not the training; what could not be sent is sent with the
next round.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, TrackingRecipe
from qcrd_ray.recipe.file import flatten
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.run.results import Results, RoundMetrics
from qcrd_ray.run.secrets import without_key
from qcrd_ray.run.storage import is_uri, redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_FILE = "mlflow.json"
_METRIC_NAME = re.compile(r"[^\w\-. :/]")  # what MLflow takes no name with
_PER_BATCH = 100  # params in one request: MLflow's limit
_PARAM_CHARS = 6_000  # of one value: MLflow's limit
# MLflow retries a call for minutes, where here the next round tries again anyway; and it prints
# links into the progress line.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

log = logging.getLogger(__name__)


def check(recipe: TrackingRecipe) -> str:
    """Where metrics will go, in words, after checking that MLflow is installed and answers.

    Raises:
        UserError: mlflow is not installed, or nothing usable answers there.
    """
    if recipe.mlflow is None:
        return "metrics.jsonl and TensorBoard in the run folder"
    if find_spec("mlflow") is None:
        raise UserError(
            "tracking.mlflow is set and mlflow is not installed: `pip install mlflow-skinny`, or"
            " take the key out"
        )
    from mlflow.exceptions import MlflowException

    try:
        _client(recipe).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"tracking.mlflow: {recipe.mlflow} cannot be used: {_said(error)}"
        ) from None
    return f"MLflow at {recipe.mlflow}, experiment {recipe.experiment}"


@contextmanager
def tracked(recipe: Recipe, folder: RunFolder) -> Iterator[Tracker]:
    """Yield a tracker. Its MLflow run ends as the block does: finished, failed or killed."""
    tracker = Tracker(recipe, folder)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """One MLflow run: a new one, or the one that the run folder names.

    Without tracking.mlflow it does nothing.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder):
        self._recipe, self._folder = recipe, folder
        self._client = None if recipe.tracking.mlflow is None else _client(recipe.tracking)
        self._run: str | None = None
        self._sent: dict[str, set[int]] = {}
        self._send(lambda client, run: None)

    def rounds(self, objective: str, rows: Sequence[RoundMetrics]) -> None:
        """Send the rounds that have not been sent. ``rows``: all rounds of the training so far."""
        self._send(lambda client, run: self._send_rounds(client, run, objective, rows))

    def results(self, results: Results) -> None:
        """Send accuracies and the ends of their intervals as "test/student/rationale/accuracy"."""
        numbers: dict[str, float] = {
            _METRIC_NAME.sub("", f"{row['split']}/{row['name']}/{row['head']}/{name}"): row[name]
            for row in results["rows"]
            for name in ("accuracy", "low", "high")
        }
        self._send(lambda client, run: _log(client, run, numbers, step=0))

    def artifact(self, path: Path) -> None:
        """Send a file."""
        self._send(lambda client, run: client.log_artifact(run, str(path)))

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the MLflow run."""
        self._send(lambda client, run: client.set_terminated(run, status))

    def _send(self, call: Callable[[MlflowClient, str], object]) -> None:
        """Call with the client and the id of the run. A server that fails is logged."""
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            if self._run is None:
                self._run = self._resume(self._client) or self._create(self._client)
            call(self._client, self._run)
        except (MlflowException, OSError) as error:
            log.warning("MLflow at %s: %s", self._recipe.tracking.mlflow, _said(error))

    def _resume(self, client: MlflowClient) -> str | None:
        """The MLflow run that the run folder names, if the store has it.

        The recipe may name another store than before.
        """
        from mlflow.exceptions import MlflowException

        file = self._folder.root / RUN_FILE
        if not file.exists():
            return None
        run = json.loads(file.read_text())["run_id"]
        try:
            client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run

    def _create(self, client: MlflowClient) -> str:
        from mlflow.entities import Param

        name = self._recipe.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        call = describe_call(self._recipe.seed)
        tags = {
            "qcrd_ray": call["qcrd_ray"],
            "run_folder": str(self._folder.root),
            "mlflow.source.git.commit": call["commit"] or "",
        }
        run = client.create_run(experiment_id, run_name=self._recipe.name, tags=tags).info.run_id
        params = [
            Param(key, str(value)[:_PARAM_CHARS]) for key, value in _params(self._recipe).items()
        ]
        for start in range(0, len(params), _PER_BATCH):
            client.log_batch(run, params=params[start : start + _PER_BATCH])
        write_text(
            self._folder.root / RUN_FILE,
            json.dumps({"experiment": name, "run_id": run}, indent=2) + "\n",
        )
        return run

    def _send_rounds(
        self, client: MlflowClient, run: str, objective: str, rows: Sequence[RoundMetrics]
    ) -> None:
        sent = self._sent.get(objective)
        if sent is None:  # what an earlier call on this run folder sent
            history = client.get_metric_history(run, f"{objective}/round")
            sent = self._sent[objective] = {metric.step for metric in history}
        for row in rows:
            if row["step"] not in sent:
                numbers = {
                    f"{objective}/{name.replace('.', '/')}": value
                    for name, value in flatten(dict(row)).items()
                }
                _log(client, run, numbers, step=row["step"])
                sent.add(row["step"])


def _said(error: Exception) -> str:
    """An error of MLflow's, which may hold the server's words, without what lets in there."""
    text = str(error)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        text = without_key(text, os.environ.get(name))
    return text


def _log(client: MlflowClient, run: str, numbers: Mapping[str, float], *, step: int) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, step) for name, value in numbers.items()]
    client.log_batch(run, metrics=metrics)


def _client(recipe: TrackingRecipe) -> MlflowClient:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=recipe.mlflow)


def _params(recipe: Recipe) -> dict[str, Any]:
    """The recipe with dotted keys, without the replicas' environment and a store's credentials."""
    tree = recipe.model_dump(mode="json", by_alias=True)
    tree["run"] = redacted(recipe.run) if is_uri(recipe.run) else recipe.run
    tree["teacher"].pop("env", None)
    return flatten(tree)
