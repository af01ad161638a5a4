"""A small comparison on a local Ray: trials in parallel, finished ones kept, and a table that a
planted null does not fool.
"""

from __future__ import annotations

import json

import pytest
import yaml
from training_tiny import BASE, tiny_recipe, write_run

from qcrd_ray.comparison import compare, read_methods

pytestmark = pytest.mark.integration

CHANGES = {
    "train.rounds": 2,
    "train.round.size": 4,
    "compare.resamples": 1_000,
    "compare.control": {"generate": 12, "kind": "plain"},
}


def methods(tmp_path, names):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    return read_methods(
        path, [f"{key}={json.dumps(value)}" for key, value in CHANGES.items()], names
    )


def test_cells_are_trained_once_and_the_table_is_whole(local_ray, tmp_path):
    folder, recipe = write_run(tmp_path / "run"), tiny_recipe(**CHANGES)
    names = ["finetune", "again=finetune", "dss", "qcrd_no_discriminator", "control"]
    told = []
    results = compare(
        recipe, folder, methods(tmp_path, names), seeds=2, report=lambda *call: told.append(call)
    )
    assert told[-1][:2] == (10, 10)
    label, rationale = results["measured"]
    assert (label["head"], rationale["head"]) == ("label", "rationale")
    assert (
        list(label["means"]) == ["finetune", "again", "dss", "qcrd_no_discriminator", "control"]
        and "finetune" not in rationale["means"]
    )
    null = next(
        pair for pair in label["pairs"] if (pair["first"], pair["second"]) == ("finetune", "again")
    )
    assert null["p"] is None and null["holm"] is None, "two seeds are too few for a claim"
    assert all(mean["seeds"] == 2 and mean["questions"] == 8 for mean in label["means"].values())
    assert len({cost["questions_seen"] for cost in results["cost"].values()}) == 1, (
        "one budget for all"
    )
    assert {row["name"] for row in results["baselines"]} == {"student base"}
    home = folder.root / "compare" / "all"
    assert (home / "table.md").read_text().count("dss") > 3 and not list(home.glob("*/*/best")), (
        "weights are not kept"
    )
    trials = {path: path.stat().st_mtime_ns for path in home.glob("*/*/trial.json")}
    assert len(trials) == 10
    more = compare(recipe, folder, methods(tmp_path, [*names, "dss_voted"]), seeds=2)
    assert all(path.stat().st_mtime_ns == made for path, made in trials.items()), (
        "finished trials are not run again"
    )
    assert (
        more["measured"][0]["means"]["finetune"] == label["means"]["finetune"]
        and "dss_voted" in more["measured"][0]["means"]
    )


VOTES = {
    "judge.samples": 3,
    "judge.inputs": ["student", "label"],
    "judge.others": {"base": ["base"], "calculator": ["steps"]},
    "data.unlabelled": {"generate": 6, "seed": 5},
    "compare.variants": {"self": {"like": "dss_voted", "set": {"self_training.vote": "judged"}}},
    "compare.pairs": [["self/judged vote of 3", "dss_voted/vote of 3"]],
}


def test_votes_and_a_second_training_stand_in_the_table(local_ray, tmp_path):
    """Judges, votes and self-training in trials, from the recipe's keys to the table."""
    folder, changes = write_run(tmp_path / "run"), CHANGES | VOTES
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(BASE))
    asked = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    compared = read_methods(path, asked, ["finetune", "dss_voted", "self"])
    recipe = tiny_recipe(**changes)
    results = compare(recipe, folder, compared, seeds=1)
    (votes,) = results["votes"]
    rows = set(votes["means"])
    for method in ("dss_voted", "self"):
        assert {
            f"{method}/{row}"
            for row in (
                "label",
                "rationale",
                "vote of 3",
                "judged vote of 3",
                "judged vote of 3 (base)",
                "judged vote of 3 (calculator)",
                "best of 3",
                "any of 3",
            )
        } <= rows
    assert "finetune/label" in rows and "finetune/vote of 3" not in rows
    (claim,) = votes["pairs"]
    assert (claim["second"], claim["p"]) == ("self/judged vote of 3", None), "one seed"
    judges = results["cost"]["self"]["judges"]
    assert set(judges["test"]) == {"judge", "base", "calculator"} and "trained on" in judges
    home = folder.root / "compare" / "all"
    assert "votes of samples" in (home / "table.md").read_text()
    assert not list(home.glob("*/*/self_training")), "a second student's weights are not kept"
