"""A comparison's table must tell how it was made, and what its numbers are."""

from __future__ import annotations

import pytest

from qcrd_ray.comparison.table import markdown

MEAN = {"mean": 0.5, "sd": 0.01, "low": 0.4, "high": 0.6, "seeds": 5, "questions": 2_000}
COST = {
    **{
        "questions_seen": 100.0,
        "tokens": 5_000.0,
        "seconds": 9.0,
        "discriminator": {},
        "student": {},
        "negatives": {},
    },
    "rationales": {"test": {"parsable": 1.0, "tokens": 28.27}},
}
JUDGE = {"auc_teacher": 0.59, "auc_teacher_within_question": 0.52, "auc_student": 0.51}


def results(**more):
    means = {name: MEAN for name in ("finetune", "dss", "qcrd")}
    return {
        "call": {
            "commit": "abc",
            "command": [
                "qcrd",
                "compare",
                "my recipe.yaml",
                "--set",
                "run=s3://me:hunter2@bucket/run",
            ],
        },
        "seeds": 5,
        "rationales": 48,
        "measured": [
            {"split": "test", "head": head, "means": means, "pairs": []}
            for head in ("label", "rationale")
        ],
        "cost": {
            "finetune": COST | {"rationales": {"test": {}}},
            "dss": COST,
            "qcrd": COST | {"discriminator": JUDGE},
        },
        "baselines": [],
        **more,
    }


def test_a_table_says_how_to_make_it_again():
    text = markdown(results())
    assert (
        "```bash\nqcrd compare 'my recipe.yaml' --set run=s3://bucket/run\n```\n" in text
        and "hunter2" not in text
    )


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (("vote", "vote", "vote"), "vote."),
        (("gold", "vote", "gold"), "gold (finetune, qcrd), vote (dss)."),
    ],
)
def test_a_table_says_which_labels_were_trained_on(labels, told):
    """Guards a table of `--labels vote` that reads like one of gold labels."""
    methods = {
        name: {"objective": {"labels": each}}
        for name, each in zip(("finetune", "dss", "qcrd"), labels, strict=True)
    }
    assert f"\nLabels (`objective.labels`, `--labels`): {told}\n" in markdown(
        results(methods=methods)
    )


def test_a_split_says_how_much_it_is_the_mean_of():
    assert "\n## test, rationale head: 2,000 questions, 5 seeds\n" in markdown(results())


def test_the_label_heads_table_says_by_which_head_checkpoints_were_chosen():
    """Guards `finetune`, which has the label head alone, beside methods whose checkpoint was chosen
    for the other head.
    """
    text = markdown(
        results(chosen_by={"finetune": "label", "dss": "rationale", "qcrd": "rationale"})
    )
    (line,) = (line for line in text.splitlines() if "choose_by" in line)
    assert (
        line
        == "Checkpoints were chosen (`train.validate.choose_by`) by: label (finetune), rationale"
        " (dss, qcrd)."
    )
    assert text.index("label head:") < text.index(line) < text.index("rationale head:")


def test_the_cost_table_tells_lengths_and_what_its_aucs_are():
    """Guards an AUC on what the discriminator has just been trained on that reads like one on new
    questions.
    """
    text = markdown(results())
    assert "| dss | 100 | 5,000 | 9 | 1.00 |  |  |  | 28.3 |  |  |  |  |" in text
    assert "| qcrd |" in text
    assert text.index("that it has just learnt from") < text.index("| AUC teacher |")
    assert "AUCs" not in markdown(results(cost={"dss": COST})), "there are none"


def test_a_file_of_an_older_version_can_be_shown():
    """Guards kept results: they lack the keys that were added since."""
    text = markdown(results(call={"commit": "abc"}))
    assert "bash" not in text and "Labels" not in text and "choose_by" not in text
