"""Training on a real local Ray with real DeepSpeed: what is learnt must not depend on workers,
micro-batches, shards or interruptions.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from training_tiny import tiny_recipe, write_run
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from qcrd_ray.data.records import ScoredAs
from qcrd_ray.errors import UserError
from qcrd_ray.method.discriminator import Discriminator
from qcrd_ray.training import train
from qcrd_ray.training.metrics import read_metrics, read_scores

pytestmark = pytest.mark.integration

ROUNDS = {"train.rounds": 3, "train.round.size": 8}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in ours)


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return weights(run / "train" / "qcrd" / "snapshots" / "00003")


@pytest.fixture(scope="module")
def reference(local_ray, tmp_path_factory):
    """An uninterrupted QCRD training on two workers; (run folder, its result)."""
    root = tmp_path_factory.mktemp("reference")
    seen, rounds = [], []
    followed = {
        "report": lambda *call: seen.append(call),
        "on_rounds": lambda rows: rounds.append(len(rows)),
    }
    result = train(tiny_recipe(**ROUNDS), write_run(root), objective="qcrd", **followed)
    assert seen[-1][:2] == (24, 24)
    assert rounds[-1] == 3 and rounds == sorted(set(rounds)), (
        "who follows the rounds is told of each, the last one included"
    )
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen), (
        "the progress line must not run backwards"
    )
    return root, result


def test_a_training_leaves_student_discriminator_metrics_and_result(reference):
    """Guards what later stages read: a loadable best student with tokenizer, its discriminator, and
    a row of metrics a round.
    """
    root, result = reference
    home = root / "train" / "qcrd"
    model, tokenizer = (
        AutoModelForSeq2SeqLM.from_pretrained(home / "best"),
        AutoTokenizer.from_pretrained(home / "best"),
    )
    assert model.config.vocab_size >= len(tokenizer)
    assert (
        0.0
        < Discriminator.load(home / "best" / "discriminator").score(
            [tuple(tokenizer("a", "b").input_ids)]
        )[0]
        < 1.0
    )
    assert (
        AutoTokenizer.from_pretrained(home / "best" / "discriminator").pad_token_id
        == tokenizer.pad_token_id
    )
    assert json.loads((home / "result.json").read_text()) == result
    assert (
        result["steps"] == 24
        and result["questions_seen"] == 144
        and result["data"]["questions"] == 24
    )
    rows = read_metrics(home)
    assert [row["round"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert {
            "l_pos",
            "l_neg",
            "active_fraction",
            "negative_from_student",
            "score_positive",
            "prediction",
        } <= row["student"].keys()
        assert row["validation"].keys() == {"label", "rationale", "mean"}
        assert 0 <= row["negatives"]["right_share"] <= 1 and row["negatives"]["sampled"] > 0
        assert {"loss", "auc_teacher", "learning_rate"} <= row["discriminator"].keys()
    assert rows[1]["discriminator"]["learning_rate"] == pytest.approx(
        0.9 * rows[0]["discriminator"]["learning_rate"]
    )
    assert [row["negatives"]["snapshot"] for row in rows] == [
        0,
        0,
        1,
    ], "lag 1, the oldest before it"
    assert rows[-1]["student"]["prediction"] < rows[0]["student"]["prediction"], "it learns"
    assert list((home / "tensorboard").glob("events.*"))
    scores, made = read_scores(home), {ScoredAs.CORRUPTED, ScoredAs.EVOLVED}
    assert (
        list(scores) == [0, 1, 2]
        and {scored.scored_as for scored in scores[2]} == set(ScoredAs) - made
    )
    assert not (home / "checkpoints").exists() and len(list((home / "snapshots").iterdir())) == 2, (
        "shards go, the ring holds lag + 1"
    )


def test_a_finished_training_returns_at_once(reference):
    root, result = reference
    start = time.monotonic()
    from qcrd_ray.runs.folder import RunFolder

    assert train(tiny_recipe(**ROUNDS), RunFolder(root), objective="qcrd") == result
    assert time.monotonic() - start < 1.0


def test_one_worker_learns_what_two_learn(reference, tmp_path):
    """Guards global normalisation through the whole loop: student, discriminator, scores and
    negatives.
    """
    root, _ = reference
    train(
        tiny_recipe(**ROUNDS, **{"train.workers": 1, "train.micro_batch_size": 2}),
        write_run(tmp_path),
        objective="qcrd",
    )
    ours, theirs = read_metrics(tmp_path / "train" / "qcrd"), read_metrics(root / "train" / "qcrd")
    for one, two in zip(ours, theirs, strict=True):
        assert one["student"] == pytest.approx(two["student"], abs=1e-5)
        assert one["tokens"] == two["tokens"], "an exact count, whoever read them"
        assert one["discriminator"] == pytest.approx(two["discriminator"], abs=1e-5)
    # AdamW divides by the gradient's own size, so rounding in gradients near zero is magnified:
    # looser than the losses.
    assert distance(last_weights(tmp_path), last_weights(root)) < 1e-4


def test_a_killed_worker_changes_nothing(reference, tmp_path):
    """A rank is SIGKILLed after the first checkpoint: Ray Train restarts the group and the weights
    come out the same.
    """
    root, _ = reference
    killed = []

    def kill_a_worker():
        snapshot = tmp_path / "train" / "qcrd" / "checkpoints" / "checkpoint_manager_snapshot.json"
        while not (snapshot.exists() and "round-00001" in snapshot.read_text()):
            time.sleep(0.05)
        workers = [
            p
            for p in psutil.Process().children(recursive=True)
            if "RayTrainWorker" in " ".join(p.cmdline())
        ]
        workers[-1].kill()
        killed.append(workers[-1].pid)

    thread = threading.Thread(target=kill_a_worker, daemon=True)
    thread.start()
    train(tiny_recipe(**ROUNDS), write_run(tmp_path), objective="qcrd")
    thread.join(timeout=1)
    assert killed and not psutil.pid_exists(killed[0])
    assert [row["round"] for row in read_metrics(tmp_path / "train" / "qcrd")] == [0, 1, 2]
    assert distance(last_weights(tmp_path), last_weights(root)) < 1e-6


KILLED_DRIVER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from training_tiny import tiny_recipe
from qcrd_ray.cluster.resources import connect
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.training import train
root = Path({root!r})
listed = root / "train/qcrd/checkpoints/checkpoint_manager_snapshot.json"
def report(done, total, note):
    if listed.exists() and "round-00001" in listed.read_text():
        os.kill(os.getpid(), signal.SIGKILL)
recipe = tiny_recipe(**{rounds!r})
connect(recipe.ray)
train(recipe, RunFolder(root), objective="qcrd", report=report)
"""


@pytest.mark.long
def test_a_killed_driver_goes_on_from_its_last_round(reference, tmp_path):
    """The first call dies by SIGKILL after a checkpoint; the second goes on from there, and ends
    with the same weights.
    """
    root, _ = reference
    folder = write_run(tmp_path)
    rounds = {**ROUNDS, "ray.address": "local", "ray.num_cpus": 8}
    script = KILLED_DRIVER.format(
        here=str(Path(__file__).parents[1] / "support"), root=str(tmp_path), rounds=rounds
    )
    with tempfile.TemporaryDirectory(
        prefix="q_", ignore_cleanup_errors=True
    ) as short:  # Ray's socket files need a short path
        done = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "RAY_TMPDIR": short}, timeout=240
        )
        time.sleep(3)  # the orphaned Ray notices
    assert done.returncode == -signal.SIGKILL
    before = (tmp_path / "train" / "qcrd" / "metrics.jsonl").read_text().splitlines()[0]
    train(tiny_recipe(**ROUNDS), folder, objective="qcrd")
    assert (tmp_path / "train" / "qcrd" / "metrics.jsonl").read_text().splitlines()[0] == before, (
        "round 0 was not run again"
    )
    assert distance(last_weights(tmp_path), last_weights(root)) < 1e-6


def test_the_baseline_trains_on_the_same_questions(local_ray, reference):
    """`finetune` in the same run folder: same data and budget, label head only, no discriminator
    and no samplers.
    """
    root, qcrd = reference
    from qcrd_ray.runs.folder import RunFolder

    result = train(tiny_recipe(**ROUNDS), RunFolder(root), objective="finetune")
    assert result["data"] == qcrd["data"] and result["questions_seen"] == qcrd["questions_seen"]
    assert result["validation"].keys() == {"label", "mean"}
    home = root / "train" / "finetune"
    assert not (home / "negatives").exists() and not (home / "best" / "discriminator").exists()
    assert AutoModelForSeq2SeqLM.from_pretrained(home / "best")


def test_one_process_without_ray_and_deepspeed_learns_the_same(reference, tmp_path):
    """A comparison's trials train alone: what they say must hold for a training on a cluster."""
    from qcrd_ray.runs.folder import RunFolder
    from qcrd_ray.training.trainer import prepare_job
    from qcrd_ray.training.worker import train_in_process

    root, _ = reference
    recipe = tiny_recipe(**{**ROUNDS, "train.workers": 1, "train.zero_stage": 0})
    job = prepare_job(recipe, write_run(tmp_path), "qcrd")
    job.folder.mkdir()
    train_in_process(job)
    assert distance(last_weights(tmp_path), last_weights(root)) < 1e-4
    ours, theirs = (read_metrics(RunFolder(where).training("qcrd")) for where in (tmp_path, root))
    assert [row["student"]["loss"] for row in ours] == pytest.approx(
        [row["student"]["loss"] for row in theirs], abs=1e-4
    )
    assert [row["validation"] for row in ours] == [row["validation"] for row in theirs]


@pytest.mark.parametrize(
    ("objective", "heads"),
    [("mi", {"label", "rationale"}), ("single_task", {"rationale"})],
)
@pytest.mark.long
def test_the_methods_it_is_compared_with_train_on_the_same_data(
    local_ray, reference, objective, heads
):
    """Same file, same budget, no discriminator, no samplers, and only the heads that the method
    trains are measured.
    """
    root, qcrd = reference
    from qcrd_ray.runs.folder import RunFolder

    result = train(tiny_recipe(**ROUNDS), RunFolder(root), objective=objective)
    assert result["data"] == qcrd["data"] and result["questions_seen"] == qcrd["questions_seen"]
    assert result["validation"].keys() == {*heads, "mean"}
    home = root / "train" / objective
    assert not (home / "negatives").exists() and not (home / "best" / "discriminator").exists()
    rows = read_metrics(home)
    assert rows[-1]["student"]["explanation"] < rows[0]["student"]["explanation"]


@pytest.mark.long
def test_qcrd_without_a_discriminator_still_contrasts(local_ray, tmp_path):
    """`objective.weights: none` must take D away and nothing else: negatives are sampled, chosen
    and pushed away at weight 1.
    """
    recipe = tiny_recipe(
        **{
            **ROUNDS,
            "train.rounds": 2,
            "objective.weights": "none",
            "objective.selection": "sampling",
        }
    )
    train(recipe, write_run(tmp_path), objective="qcrd")
    home = tmp_path / "train" / "qcrd"
    assert not (home / "best" / "discriminator").exists()
    rows = read_metrics(home)
    assert all(
        "discriminator" not in row
        and row["negatives"]["sampled"]
        and row["student"]["two_sided"] > 0
        for row in rows
    )
    assert not any(name.startswith("score_") for row in rows for name in row["student"])


@pytest.mark.long
def test_dpo_on_two_workers_is_dpo_in_one_process(local_ray, tmp_path):
    """The start's scores are shared out and added up: every worker must compare with the same
    ones.
    """
    from qcrd_ray.training.trainer import prepare_job
    from qcrd_ray.training.worker import train_in_process

    changes = {**ROUNDS, "train.rounds": 2, "objective.selection": "sampling"}
    train(tiny_recipe(**changes), write_run(tmp_path / "two"), objective="dpo")
    job = prepare_job(
        tiny_recipe(**{**changes, "train.workers": 1, "train.zero_stage": 0}),
        write_run(tmp_path / "one"),
        "dpo",
    )
    job.folder.mkdir()
    train_in_process(job)
    two, one = (read_metrics(tmp_path / name / "train" / "dpo") for name in ("two", "one"))
    for ours, theirs in zip(one, two, strict=True):
        assert ours["student"] == pytest.approx(theirs["student"], abs=1e-3)


@pytest.mark.long
def test_late_negatives_end_with_a_named_cause(local_ray, tmp_path):
    """Guards against a trainer that waits for ever: the sampler never gets its snapshot's negatives
    out in time.
    """
    recipe = tiny_recipe(**{**ROUNDS, "negatives.wait_timeout_s": 0.01, "train.max_failures": 0})
    with pytest.raises(UserError, match=r"round 0 \(from snapshot 0\) did not come within 0.01 s"):
        train(recipe, write_run(tmp_path), objective="qcrd")
