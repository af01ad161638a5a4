"""MLflow: everything arrives in one run, goes on in it after a break, and neither a dead server nor
a password gets in the way.
"""

import json
import logging
import sys

import pytest
from training_tiny import tiny_recipe

from qcrd_ray.doctor import recipe_checks
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import TrackingRecipe
from qcrd_ray.runs import tracking
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.tracking import mlflow_run

RESULTS = {
    "rows": [
        {
            "name": "teacher, voted",
            "head": "vote",
            "split": "test",
            "accuracy": 0.5,
            "low": 0.4,
            "high": 0.6,
        }
    ]
}


def rounds(count):
    return [
        {
            "round": i,
            "step": 5 * (i + 1),
            "student": {"loss": 1.0 / (i + 1)},
            "validation": {"label": 0.5},
            "seconds": {"student": 2.0},
            "tokens": 7,
        }
        for i in range(count)
    ]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A real store in files, and a client of the test's own that looks into it."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = (tmp_path / "mlruns").as_uri()
    return uri, mlflow.MlflowClient(tracking_uri=uri)


@pytest.fixture
def recipe(store):
    serve = {"source": "serve", "model": "demo", "env": {"ACCOUNT": "hf_secret"}}
    return tiny_recipe(
        teacher=serve, **{"tracking.mlflow": store[0], "tracking.experiment": "tests"}
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def only_run(client):
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    return run


def test_params_rounds_results_and_the_report_arrive_in_one_run(store, recipe, folder):
    assert "experiment tests" in tracking.check(recipe.tracking)
    with tracking.tracked(recipe, folder) as tracker:
        tracker.rounds("qcrd", rounds(1))
        tracker.rounds("qcrd", rounds(3))
        tracker.rounds("finetune", rounds(2))
        tracker.results(RESULTS)
        folder.report.write_text("<!doctype html>")
        tracker.artifact(folder.report)
    client = store[1]
    run = only_run(client)
    assert run.info.status == "FINISHED" and run.info.run_name == "tiny"
    assert (
        run.data.params["train.learning_rate"] == "0.001"
        and run.data.params["student.scratch.d_model"] == "32"
    )
    losses = client.get_metric_history(run.info.run_id, "qcrd/student/loss")
    assert [(metric.step, metric.value) for metric in losses] == [
        (5, 1.0),
        (10, 0.5),
        (15, pytest.approx(1 / 3)),
    ]
    assert len(client.get_metric_history(run.info.run_id, "finetune/validation/label")) == 2
    assert run.data.metrics["test/teacher voted/vote/accuracy"] == 0.5
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_secrets_of_the_recipe_are_not_sent(store, recipe, folder):
    with tracking.tracked(recipe, folder):
        pass
    assert "hf_secret" not in str(only_run(store[1]).to_dictionary())


def test_a_run_that_goes_on_sends_no_round_twice_and_none_too_few(store, recipe, folder):
    """Bug guarded: a second MLflow run, or every round doubled, after a restart."""
    with pytest.raises(KeyboardInterrupt), tracking.tracked(recipe, folder) as tracker:
        tracker.rounds("qcrd", rounds(2))
        raise KeyboardInterrupt
    assert only_run(store[1]).info.status == "KILLED"
    with tracking.tracked(recipe, folder) as tracker:
        tracker.rounds("qcrd", rounds(4))
    run = only_run(store[1])
    assert run.info.status == "FINISHED"
    assert [
        metric.step for metric in store[1].get_metric_history(run.info.run_id, "qcrd/student/loss")
    ] == [5, 10, 15, 20]


def test_another_store_gets_a_run_of_its_own(store, recipe, folder, tmp_path):
    with tracking.tracked(recipe, folder):
        pass
    first = json.loads((folder.root / "mlflow.json").read_text())["run_id"]
    other = recipe.model_copy(
        update={
            "tracking": TrackingRecipe(mlflow=(tmp_path / "other").as_uri(), experiment="tests")
        }
    )
    with tracking.tracked(other, folder):
        pass
    assert json.loads((folder.root / "mlflow.json").read_text())["run_id"] != first


def test_a_failure_is_told_as_one(store, recipe, folder):
    with pytest.raises(UserError), tracking.tracked(recipe, folder):
        raise UserError("too small")
    assert only_run(store[1]).info.status == "FAILED"


def test_a_server_that_goes_away_costs_a_warning_and_no_round(
    store, recipe, folder, monkeypatch, caplog
):
    """Bug guarded: a day of training that ends because a tracking server was restarted."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.file_store import FileStore

    with tracking.tracked(recipe, folder) as tracker, caplog.at_level(logging.WARNING):
        with monkeypatch.context() as away:

            def refuse(*args, **kwargs):
                raise MlflowException("connection refused")

            away.setattr(FileStore, "log_batch", refuse)
            tracker.rounds("qcrd", rounds(2))
        assert "connection refused" in caplog.text
        tracker.rounds("qcrd", rounds(3))
    run = only_run(store[1])
    assert len(store[1].get_metric_history(run.info.run_id, "qcrd/student/loss")) == 3


def test_nothing_is_sent_where_nothing_is_asked_for(folder):
    with tracking.tracked(tiny_recipe(), folder) as tracker:
        tracker.rounds("qcrd", rounds(1))
        tracker.results(RESULTS)
    assert list(folder.root.iterdir()) == []


def test_asked_for_and_not_installed_is_refused_before_anything(monkeypatch):
    monkeypatch.setattr(mlflow_run, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install mlflow-skinny"):
        tracked = tiny_recipe(**{"tracking.mlflow": "http://localhost:5000"})
        recipe_checks.checks_of(tracked, Questions(tracked))["tracking"]()


def test_a_password_in_the_uri_is_refused_and_not_repeated():
    """By the recipe, before it is written anywhere: `qcrd report` checks no tracking server."""
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        TrackingRecipe(mlflow="https://me:hunter2@mlflow.example.org")
    assert "hunter2" not in str(refused.value)


def test_a_server_that_quotes_the_token_is_not_repeated(monkeypatch):
    class Quoting:
        def search_experiments(self, **arguments):
            raise OSError("401: Bearer hunter2/hunter2 is not known")

    monkeypatch.setattr(mlflow_run, "_client", lambda uri: Quoting())
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2/hunter2")
    with pytest.raises(UserError, match="Bearer <key> is not known"):
        tracking.check(TrackingRecipe(mlflow="https://mlflow.example.org"))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "strange://x"])
def test_a_store_that_cannot_be_used_is_refused(store, uri):
    with pytest.raises(UserError, match="cannot be used"):
        tracking.check(TrackingRecipe(mlflow=uri))


def test_a_tracker_is_not_imported_unless_it_is_asked_for():
    """Bug guarded: a second of start-up, and a package that need not be there."""
    import subprocess

    script = (
        "import sys; from qcrd_ray.runs import tracking;"
        " sys.exit(bool({'mlflow', 'wandb'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0
