"""Weights & Biases, offline as on a node without a network: what was sent is read back from the
file that `wandb sync` sends.
"""

from __future__ import annotations

import json
import logging
import struct

import pytest
from training_tiny import tiny_recipe

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import TrackingRecipe
from qcrd_ray.runs import tracking
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.tracking import wandb_run

wandb = pytest.importorskip("wandb", reason="wandb is not installed")

ROW = {"name": "student", "head": "vote", "split": "test"}
RESULTS = {"rows": [{**ROW, "accuracy": 0.5, "low": 0.4, "high": 0.6}]}
BLOCK, HEAD = 32_768, 7  # of LevelDB's log format, which begins after a head of the same length


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    wandb.teardown()  # its settings are those of the first call
    yield
    wandb.teardown()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


RECIPE = tiny_recipe(
    teacher={"source": "serve", "model": "demo", "env": {"ACCOUNT": "hf_secret"}},
    **{"tracking.wandb": "rationales"},
)


def rounds(count):
    return [
        {"round": i, "step": 5 * (i + 1), "student": {"loss": 1.0 / (i + 1)}, "tokens": 7}
        for i in range(count)
    ]


def records(folder):
    """The records of every run file in the folder."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # on a busy machine its service still writes after the run's end
    for file in folder.root.glob("wandb/*/run-*.wandb"):
        data, at, whole = file.read_bytes(), HEAD, b""
        while at + HEAD <= len(data):
            if BLOCK - at % BLOCK < HEAD:  # no room for a head
                at += BLOCK - at % BLOCK
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + HEAD])
            whole += data[at + HEAD : at + HEAD + length]
            at += HEAD + length
            if kind in (1, 4):  # whole, or the last part
                record = Record()
                record.ParseFromString(whole)
                whole = b""
                yield record


def history(folder):
    """The rows that were logged: [{"qcrd/step": 5, ...}, ...]."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row}
        for row in (
            record.history.item
            for record in records(folder)
            if record.WhichOneof("record_type") == "history"
        )
    ]


def test_config_rounds_results_and_the_report_arrive(folder):
    assert "project rationales (WANDB_MODE=offline)" in tracking.check(RECIPE.tracking)
    with tracking.tracked(RECIPE, folder) as tracker:
        tracker.rounds("finetune", rounds(2))
        tracker.rounds("qcrd", rounds(1))
        tracker.rounds("qcrd", rounds(3))
        tracker.results(RESULTS)
        folder.report.write_text("<!doctype html>")
        tracker.artifact(folder.report)
    rows = history(folder)
    assert [row["qcrd/step"] for row in rows if "qcrd/step" in row] == [5, 10, 15]
    assert [row["qcrd/student/loss"] for row in rows if "qcrd/step" in row] == [
        1.0,
        0.5,
        pytest.approx(1 / 3),
    ]
    assert [row["finetune/step"] for row in rows if "finetune/step" in row] == [5, 10]
    text = "\n".join(str(record) for record in records(folder))
    assert 'project: "rationales"' in text and '"train.learning_rate"' in text
    assert "test/student/vote/accuracy" in text and "report.html" in text
    assert "exit_code: 0" in text or "exit {" in text
    assert "hf_secret" not in text


def test_a_run_that_goes_on_is_the_same_run_and_sends_no_round_twice(folder):
    """Bug guarded: a second run, or every round doubled, after a restart."""
    with pytest.raises(KeyboardInterrupt), tracking.tracked(RECIPE, folder) as tracker:
        tracker.rounds("qcrd", rounds(2))
        raise KeyboardInterrupt
    with tracking.tracked(RECIPE, folder) as tracker:
        tracker.rounds("qcrd", rounds(4))
    assert sorted(row["qcrd/step"] for row in history(folder)) == [5, 10, 15, 20]
    runs = {
        record.run.run_id for record in records(folder) if record.WhichOneof("record_type") == "run"
    }
    assert runs == {json.loads((folder.root / "wandb.json").read_text())["id"]}


def test_another_project_gets_a_run_of_its_own(folder):
    ids = []
    for project in ("one", "two"):
        recipe = RECIPE.model_copy(update={"tracking": TrackingRecipe(wandb=project)})
        with tracking.tracked(recipe, folder):
            pass
        ids.append(json.loads((folder.root / "wandb.json").read_text())["id"])
    assert ids[0] != ids[1]


def test_a_server_that_is_away_costs_a_warning(folder, monkeypatch, caplog):
    """Bug guarded: a day of training that ends because a tracking server was restarted."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(wandb_run, "_WAIT_S", 1.0)
    monkeypatch.setattr(wandb_run, "_UPLOAD_S", 1.0)
    wandb.teardown()
    with (
        caplog.at_level(logging.WARNING),
        tracking.tracked(RECIPE, folder) as tracker,
    ):
        tracker.rounds("qcrd", rounds(2))
    assert "Weights & Biases" in caplog.text and "k" * 40 not in caplog.text


def test_nobody_logged_in_is_said_before_anything(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()
    with pytest.raises(UserError, match=r"nobody is logged in .* WANDB_MODE=offline"):
        tracking.check(RECIPE.tracking)


def test_a_server_that_cannot_be_reached_is_refused_without_the_key(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    wandb.teardown()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be used") as refused:
        tracking.check(RECIPE.tracking)
    assert "k" * 40 not in str(refused.value)


def test_asked_for_and_not_installed_is_refused_before_anything(monkeypatch):
    monkeypatch.setattr(wandb_run, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install wandb"):
        tracking.check(RECIPE.tracking)


@pytest.mark.parametrize("name", ["team/project", "", "a?b", "x" * 129])
def test_a_name_that_no_project_can_have_is_refused(name):
    with pytest.raises(ValueError, match="wandb"):
        TrackingRecipe(wandb=name)
