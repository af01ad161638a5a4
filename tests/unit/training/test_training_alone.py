"""Whole trainings in one process, without Ray: what a recipe asks for reaches the loss and the
metrics.
"""

from __future__ import annotations

from math import isfinite, log

import pytest
from training_tiny import tiny_recipe, write_run

from qcrd_ray.data.records import ScoredAs
from qcrd_ray.errors import UserError
from qcrd_ray.method.examples import Source
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.training.metrics import MetricsWriter, read_metrics, read_scores
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import train_in_process

ROUNDS = {
    "train.rounds": 2,
    "train.round.size": 4,
    "train.workers": 1,
    "train.zero_stage": 0,
    "train.validate.every_rounds": 2,
}


def trained(root, objective: str, **changes) -> list[dict]:
    """The rows of metrics of a training of ``objective``."""
    job = prepare_job(tiny_recipe(**{**ROUNDS, **changes}), write_run(root), objective)
    job.folder.mkdir()
    train_in_process(job)
    return read_metrics(job.folder)


@pytest.mark.parametrize(
    "objective", [name for name in OBJECTIVES if name not in ("qcrd", "dpo")]
)  # these have tests of their own
def test_every_objective_trains_whatever_negatives_the_recipe_has(tmp_path, objective):
    """Methods that read no negatives must not make any; those that do choose among all of them."""
    rows = trained(
        tmp_path, objective, **{"negatives.corrupted": 1, "objective.selection": "sampling"}
    )
    assert rows[1]["student"] and all(isfinite(value) for value in rows[1]["student"].values())
    assert all(isinstance(row["tokens"], int) and row["tokens"] > 0 for row in rows)
    assert ("negatives" in rows[0]) == OBJECTIVES[objective].uses_negatives
    assert not OBJECTIVES[objective].uses_negatives or rows[0]["negatives"]["from_corrupted"] > 0


def test_dpo_learns_against_its_start(tmp_path):
    """The reference stays the start: in the second round, on the same questions, the student has
    moved away from it.
    """
    rows = trained(tmp_path, "dpo", **{"objective.selection": "sampling"})
    first, last = (row["student"] for row in rows)
    assert all("reference" in row["seconds"] and "discriminator" not in row for row in rows)
    assert (
        last["positive_gain"] > first["positive_gain"] > 0 and last["pair"] < first["pair"] < 0.75
    )
    assert last["positive_gain"] > last["negative_gain"]
    assert last["positive_nll"] < first["positive_nll"]


ONE_STEP = {
    "train.rounds": 3,
    "train.round.size": 1,
    "train.learning_rate": 1e-2,
    "objective.selection": "sampling",
}


def test_dpo_after_fine_tuning_learns_against_its_end(tmp_path):
    """With one step a round, the first pair is taken where the reference stands: no gain yet, and a
    pair term of log 2. Against the start the student would have gained what it has been taught.
    """
    phased, plain = (
        trained(tmp_path / str(rounds), "dpo", **ONE_STEP, **{"objective.sft_rounds": rounds})
        for rounds in (2, 0)
    )
    for row in phased[:2]:
        assert "reference" not in row["seconds"] and "sampled" not in row["negatives"]
        assert "pair" not in row["student"] and "negative_nll" not in row["student"]
        assert row["student"]["positive_gain"] == 0.0, "there is nothing to compare with"
    first = phased[2]
    assert first["negatives"]["sampled"] > 0 and first["negatives"]["snapshot"] == 1
    assert first["student"]["positive_gain"] == pytest.approx(0.0, abs=1e-4)
    assert first["student"]["negative_gain"] == pytest.approx(0.0, abs=1e-4)
    assert first["student"]["pair"] == pytest.approx(log(2), abs=1e-5)
    assert plain[2]["student"]["positive_gain"] > 0.1, "the start would show what SFT taught"
    snapshots = tmp_path / "2" / "train" / "dpo" / "snapshots"
    assert {entry.name for entry in snapshots.iterdir()} == {"00002", "00003"}


def test_fine_tuning_is_the_same_whatever_comes_after(tmp_path):
    """All pair methods begin as one training, and part in their first round of pairs."""
    phases = {**ONE_STEP, "objective.sft_rounds": 2, "objective.dpo_nll": 0.0}
    redi, orpo, dpo = (
        [row["student"] for row in trained(tmp_path / name, name, **phases)]
        for name in ("redi", "orpo_distill", "dpo")
    )
    for other in (orpo, dpo):
        for ours, theirs in zip(redi, other, strict=True):
            for key in ("prediction", "positive_nll"):
                assert ours[key] == pytest.approx(theirs[key], abs=1e-6)
    assert len({round(rows[2]["pair"], 3) for rows in (redi, orpo, dpo)}) == 3


def test_qcrds_discriminator_learns_while_the_student_is_fine_tuned(tmp_path):
    """Its positives keep their weights from the first round on; the student's own samples are made
    from the first round that learns from them.
    """
    sft, pairs = trained(tmp_path, "qcrd", **{"objective.sft_rounds": 1})
    assert sft["student"]["two_sided"] == 0 and "l_neg" not in sft["student"]
    assert 0 < sft["student"]["l_pos"] < sft["student"]["positive_nll"]
    assert sft["discriminator"]["loss"] and "sampled" not in sft["negatives"]
    assert pairs["student"]["two_sided"] > 0 and pairs["negatives"]["sampled"] > 0


def test_made_negatives_reach_the_loss_and_are_told_apart(tmp_path):
    """Every source in one training: counted, chosen from, scored; the discriminator sees them in
    its pretraining as well.
    """
    rows = trained(
        tmp_path,
        "qcrd",
        **{"negatives.corrupted": 1, "negatives.evolved": 1, "negatives.right": "positive"},
    )
    for row in rows:
        assert all(row["negatives"][f"from_{source}"] > 0 for source in Source)
        shares = [row["student"][f"negative_from_{source}"] for source in Source]
        assert sum(shares) == pytest.approx(1.0, abs=1e-6)
        assert {f"score_{source}_negative" for source in Source} <= row["student"].keys()
        assert {"auc_corrupted", "auc_evolved"} <= row["discriminator"].keys()
    kept = read_scores(tmp_path / "train" / "qcrd")[1]
    assert {scored.scored_as for scored in kept} == set(ScoredAs)


def test_no_negatives_at_all_is_no_mistake(tmp_path):
    """`negatives` with every source off: the contrastive term is the positives' own loss."""
    off = {"negatives.teacher": False, "negatives.student": False, "objective.weights": "none"}
    for row in trained(tmp_path, "qcrd", **off):
        assert row["negatives"] == {
            **{f"from_{source}": 0 for source in Source},
            "student_positives": 0,
        }
        assert "negative_nll" not in row["student"] and row["student"]["two_sided"] == 0


def test_older_samples_are_replayed_to_the_discriminator_alone(tmp_path):
    """D sees two rounds' samples in round 2 and says so; what the student learns from is the
    round's own.
    """
    settings = {
        "discriminator.loss": "cross_entropy",
        "discriminator.label_smoothing": 0.1,
        "train.rounds": 3,
        "negatives.lag": 1,
    }
    plain, replayed = (
        trained(tmp_path / name, "qcrd", **settings, **more)
        for name, more in (("a", {}), ("b", {"discriminator.replay": 1}))
    )
    assert replayed[0]["discriminator"] == plain[0]["discriminator"], "no older round yet"
    assert replayed[2]["discriminator"]["loss"] != plain[2]["discriminator"]["loss"]
    assert [row["negatives"]["sampled"] for row in replayed] == [
        row["negatives"]["sampled"] for row in plain
    ]


def test_the_discriminator_is_probed_where_the_student_is_validated_and_changes_nothing(tmp_path):
    """The probe draws samples: training goes on as it would have without it."""
    probed, plain = (
        trained(tmp_path / name, "qcrd", **more, **{"train.validate.every_rounds": 1})
        for name, more in (
            ("a", {"discriminator.augment": "numbers", "discriminator.positives": "label"}),
            (
                "b",
                {
                    "discriminator.augment": "numbers",
                    "discriminator.positives": "label",
                    "discriminator.probe": 0,
                },
            ),
        )
    )
    for row, same in zip(probed, plain, strict=True):
        fresh = {name for name in row["discriminator"] if "fresh" in name}
        assert {"fresh_right_share", "fresh_score_spread"} <= fresh
        assert "probe" in row["seconds"]
        assert {n: v for n, v in row["discriminator"].items() if n not in fresh} == same[
            "discriminator"
        ]
        assert row["student"] == same["student"] and row["validation"] == same["validation"]


def test_what_cannot_be_replayed_or_smoothed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"discriminator.replay: negatives.student is off"):
        trained(tmp_path, "qcrd", **{"discriminator.replay": 1, "negatives.student": False})
    with pytest.raises(ValueError, match=r"label_smoothing: only the loss cross_entropy"):
        tiny_recipe(**{"discriminator.label_smoothing": 0.1})


def test_progress_moves_through_pretraining_and_every_phase_of_a_round(tmp_path, monkeypatch):
    """Guards a line that reads `0/280 round 1/8` for the half minute of pretraining.

    The steps are the student's alone and never go back, so that the bar and the time left stay
    sensible; what moves before the first one is the note.
    """
    shown = []
    monkeypatch.setattr(
        MetricsWriter, "progress", lambda self, step, *note: shown.append((step, *note))
    )
    trained(tmp_path, "qcrd")
    assert [entry for entry in shown if entry[1].startswith("pretraining")] == [
        (0, "pretraining the discriminator", f"{done}/3") for done in range(4)
    ]
    steps = [entry[0] for entry in shown]
    assert steps == sorted(steps) and steps[-1] == 8
    first = dict.fromkeys(phase for _, phase, _ in shown if "round 1/2" in phase)
    assert list(first) == [
        "round 1/2, student negatives",
        "round 1/2, discriminator",
        "round 1/2, scoring rationales",
        "round 1/2",
    ]
    assert (4, "round 2/2, discriminator", "2/2") in shown
    assert (8, "round 2/2, validating", "") in shown
