"""A run on an MLflow server or in an MLflow store; the run folder remembers it in mlflow.json."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_call
from qcrd_ray.runs.secrets import without_key
from qcrd_ray.runs.tracking.described import params

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


def check(uri: str, experiment: str) -> str:
    """Where metrics go, in words. Raises UserError as :func:`qcrd_ray.runs.tracking.check` does."""
    if find_spec("mlflow") is None:
        raise UserError(
            "tracking.mlflow is set and mlflow is not installed: `pip install mlflow-skinny`, or"
            " take the key out"
        )
    from mlflow.exceptions import MlflowException

    try:
        _client(uri).search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise UserError(f"tracking.mlflow: {uri} cannot be used: {_said(error)}") from None
    return f"MLflow at {uri}, experiment {experiment}"


class MLflowRun:
    """A :class:`~qcrd_ray.runs.tracking.Sink` that is an MLflow run."""

    NAME: ClassVar[str] = "MLflow"

    def __init__(self, recipe: Recipe, folder: RunFolder):
        assert recipe.tracking.mlflow is not None, "the recipe names no store"
        self._recipe, self._folder = recipe, folder
        self._client = _client(recipe.tracking.mlflow)
        self._run = ""

    def start(self) -> None:
        self._run = self._resume() or self._create()

    def sent(self, objective: str) -> set[int]:
        history = self._client.get_metric_history(self._run, f"{objective}/round")
        return {metric.step for metric in history}

    def send(self, numbers: Mapping[str, float], *, objective: str, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def results(self, numbers: Mapping[str, float]) -> None:
        named = {_METRIC_NAME.sub("", name): value for name, value in numbers.items()}
        self.send(named, objective="", step=0)

    def artifact(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

    def end(self, status: str) -> None:
        self._client.set_terminated(self._run, status)

    def said(self, error: Exception) -> str | None:
        from mlflow.exceptions import MlflowException

        return _said(error) if isinstance(error, (MlflowException, OSError)) else None

    def _resume(self) -> str | None:
        """The MLflow run that the run folder names, if the store has it.

        The recipe may name another store than before.
        """
        from mlflow.exceptions import MlflowException

        file = self._folder.root / RUN_FILE
        if not file.exists():
            return None
        run = json.loads(file.read_text())["run_id"]
        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run

    def _create(self) -> str:
        from mlflow.entities import Param

        client, name = self._client, self._recipe.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        call = describe_call(self._recipe.seed)
        tags = {
            "qcrd_ray": call["qcrd_ray"],
            "run_folder": str(self._folder.root),
            "mlflow.source.git.commit": call["commit"] or "",
        }
        run = client.create_run(experiment_id, run_name=self._recipe.name, tags=tags).info.run_id
        told = [
            Param(key, str(value)[:_PARAM_CHARS]) for key, value in params(self._recipe).items()
        ]
        for start in range(0, len(told), _PER_BATCH):
            client.log_batch(run, params=told[start : start + _PER_BATCH])
        write_text(
            self._folder.root / RUN_FILE,
            json.dumps({"experiment": name, "run_id": run}, indent=2) + "\n",
        )
        return run


def _said(error: Exception) -> str:
    """An error of MLflow's, which may hold the server's words, without what lets in there."""
    text = str(error)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        text = without_key(text, os.environ.get(name))
    return text


def _client(uri: str) -> MlflowClient:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
