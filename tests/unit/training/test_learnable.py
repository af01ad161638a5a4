"""A training set with nothing to learn is refused with its counts, before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_tiny import rationale_set, tiny_recipe, write_run

from qcrd_ray.data.records import RATIONALE_SET_SCHEMA, Outcome, Role
from qcrd_ray.errors import UserError
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.training.trainer import prepare_job


def tied(row):
    """The row as a vote leaves it whose best answers have as many samples each."""
    abstained = tuple(replace(each, role=Role.ABSTAINED) for each in row.completions)
    return replace(
        row, completions=abstained, outcome=Outcome.NO_CONSENSUS, vote=None, reason="tied"
    )


def silent(row):
    """The row of a teacher that gave answers and not a word of reasoning."""
    bare = tuple(replace(each, rationale="") for each in row.completions)
    return replace(row, completions=bare)


def unread(row):
    gone = tuple(
        replace(each, answer=None, role=Role.ABSTAINED, reason="no answer found")
        for each in row.completions
    )
    return replace(row, completions=gone, outcome=Outcome.UNPARSED, vote=None)


def run_of(tmp_path, change):
    folder = write_run(tmp_path / "run")
    rows = [change(rationale_set(each, i)).row() for i, each in enumerate(generate(6, seed=1))]
    (file,) = folder.rationale_files("train")
    pq.write_table(pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA), file)
    return folder


@pytest.mark.parametrize("objective", ["qcrd", "orpo_distill", "redi", "dpo"])
def test_tied_votes_are_refused_with_their_counts_and_what_to_change(tmp_path, objective):
    """Bug guarded: such a run trained the labels alone for hours and ended with `done`, exit 0."""
    folder = run_of(tmp_path, tied)
    with pytest.raises(UserError) as refused:
        prepare_job(tiny_recipe(), folder, objective)
    said = str(refused.value)
    assert f"{objective} learns from right rationales" in said
    assert "not one of the 6 training questions has one" in said and "6 no consensus" in said
    for key in ("sampling.k is 5", "vote.tie: first", "objective.positives: label", "finetune"):
        assert key in said
    assert "record more answers" in said, "the teacher is a recording, which nobody samples"


def test_what_it_advises_helps(tmp_path):
    folder = run_of(tmp_path, tied)
    job = prepare_job(tiny_recipe(**{"objective.positives": "label"}), folder, "qcrd")
    assert job.manifest["with_positives"] == 6
    assert prepare_job(tiny_recipe(), run_of(tmp_path / "2", tied), "finetune").manifest["labelled"]


def test_answers_without_reasoning_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"(?s)6 accepted.*hold reasoning besides their answer"):
        prepare_job(tiny_recipe(), run_of(tmp_path, silent), "qcrd")


def test_without_the_rationales_loss_nothing_is_missing(tmp_path):
    recipe = tiny_recipe(**{"objective.alpha_cl": 0.0})
    assert prepare_job(recipe, run_of(tmp_path, tied), "qcrd").manifest["with_positives"] == 0


@pytest.mark.parametrize("objective", ["dss", "mi"])
def test_texts_without_an_answer_are_refused(tmp_path, objective):
    with pytest.raises(UserError, match=rf"none of the 6 .* {objective} has no rationale to learn"):
        prepare_job(tiny_recipe(), run_of(tmp_path, unread), objective)
