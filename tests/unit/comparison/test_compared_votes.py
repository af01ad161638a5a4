"""Votes in a comparison's table: costs, claims, and what is refused before anything is trained."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from training_tiny import tiny_recipe

from qcrd_ray.comparison.methods import Method
from qcrd_ray.comparison.statistics import holm
from qcrd_ray.comparison.votes import check_pairs, judge_means, vote_results
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, Prediction
from qcrd_ray.evaluation.stage import judge_notes
from qcrd_ray.evaluation.votes import vote_predictions
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.voting import Judges, Samples
from qcrd_ray.method.judge import Judge
from qcrd_ray.runs.files import write_table

VOTES = {"judge.samples": 8, "judge.inputs": ["student"], "judge.others": {"sums": ["steps"]}}
ROWS = ("rationale", "vote of 8", "judged vote of 8", "judged vote of 8 (sums)")
SHARES = {"rationale": 0.6, "vote of 8": 0.55, "judged vote of 8": 0.75}
QUESTIONS = 200


def trials_of(tmp_path, method: str, seeds: int = 4):
    """Trials whose judged votes are right more often; one sample is 10 tokens and 2 ms."""
    trials = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        luck = random.random(QUESTIONS)
        rows = [
            Prediction(
                name=method,
                head=head,
                split="test",
                question_id=str(i),
                gold="1",
                answer="1" if luck[i] < SHARES.get(head, 0.65) else "2",
                tokens=10 if head == "rationale" else 80,
                milliseconds=2.0 if head == "rationale" else 20.0,
            ).row()
            for head in ROWS
            for i in range(QUESTIONS)
        ]
        file = tmp_path / f"{method}-{seed}.parquet"
        write_table(pa.Table.from_pylist(rows, schema=PREDICTION_SCHEMA), file)
        trials.append(SimpleNamespace(method=method, predictions=file))
    return trials


def scores_of(trials):
    import pyarrow.parquet as pq

    scores = {}
    for trial in trials:
        for row in pq.read_table(trial.predictions).to_pylist():
            key = (row["split"], row["head"], trial.method)
            scores.setdefault(key, {}).setdefault(str(trial.predictions), []).append(row["right"])
    return {key: np.array(list(each.values())) for key, each in scores.items()}


def test_claims_alone_are_tested_and_corrected(tmp_path):
    recipe = tiny_recipe(
        **VOTES,
        **{
            "compare.resamples": 1_000,
            "compare.pairs": [
                ["dss/judged vote of 8", "dss/vote of 8"],
                ["dss/judged vote of 8 (sums)", "dss/vote of 8"],
            ],
        },
    )
    trials = trials_of(tmp_path, "dss")
    (part,) = vote_results(recipe, ["dss"], scores_of(trials), trials)
    judged, sums = part["pairs"]
    assert (judged["second"], judged["first"]) == ("dss/judged vote of 8", "dss/vote of 8")
    assert judged["difference"] == pytest.approx(0.2, abs=0.05), "the better one comes first"
    assert [judged["holm"], sums["holm"]] == holm([judged["p"], sums["p"]]), "over two claims"
    assert sums["difference"] == pytest.approx(0.1, abs=0.05) and part["registered"]
    mean = part["means"]["dss/judged vote of 8"]
    assert (mean["tokens"], mean["milliseconds"]) == (80.0, 20.0)
    assert part["means"]["dss/rationale"]["tokens"] == 10.0


def test_without_claims_each_method_is_held_against_itself(tmp_path):
    recipe = tiny_recipe(**VOTES, **{"compare.resamples": 1_000})
    trials = trials_of(tmp_path, "dss") + trials_of(tmp_path, "mi")
    (part,) = vote_results(recipe, ["dss", "mi"], scores_of(trials), trials)
    pairs = {(pair["second"], pair["first"]) for pair in part["pairs"]}
    assert ("mi/judged vote of 8 (sums)", "mi/rationale") in pairs and len(pairs) == 8
    assert all(a.split("/")[0] == b.split("/")[0] for a, b in pairs) and not part["registered"]


def test_a_comparison_without_votes_has_none(tmp_path):
    scores = {("test", "label", "dss"): np.ones((2, 3))}
    assert vote_results(tiny_recipe(), ["dss"], scores, []) == []


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["qcrd/rationale", "dss/rationale"], "one of the compared methods"),
        (["dss", "dss/rationale"], "expected `method/row`"),
        (["dss/judged vote of 9", "dss/rationale"], "dss has no row 'judged vote of 9'"),
        (["finetune/rationale", "dss/rationale"], "finetune has no row 'rationale'"),
    ],
)
def test_claims_that_cannot_be_tested_are_refused(pair, message):
    # guards against a criterion that is written down and silently never tested
    recipe = tiny_recipe(**VOTES, **{"compare.pairs": [pair]})
    with pytest.raises(UserError, match=message):
        check_pairs(
            recipe,
            [
                Method(name=name, recipe=tiny_recipe(**VOTES, **{"objective.name": name}))
                for name in ("dss", "finetune")
            ],
        )


def test_judges_are_averaged_over_seeds_and_leave_out_what_is_missing():
    means = judge_means(
        [
            {"test": {"judge": {"auc_within_question": 0.8, "spread": 0.1}}},
            {"test": {"judge": {"auc_within_question": None, "spread": 0.3}}},
        ]
    )
    assert means == {"test": {"judge": {"auc_within_question": 0.8, "spread": pytest.approx(0.2)}}}


def answered(answer):
    return HeadAnswer(text=f"so {answer}", answer=answer, tokens=4)


def test_every_row_reads_the_same_samples():
    questions = [Question(id=str(i), question="?", answer="7") for i in range(2)]
    samples = [
        Samples(answers=(answered("8"), answered("8"), answered("7")), evidence=((0.0,) * 4,) * 3),
        Samples(answers=(answered("7"), answered(None), answered("7")), evidence=((0.0,) * 4,) * 3),
    ]
    judges = Judges({"judge": Judge(["student_mean"], hidden=1)}, ("student",))
    predictions, quality = vote_predictions(judges, questions, samples, name="s", split="test")
    right = {}
    for each in predictions:
        right.setdefault(each.head, []).append(each.right)
    assert right["vote of 3"] == [False, True]
    assert right["any of 3"] == [True, True], "the ceiling looks at the answer"
    assert all(each.tokens == 12 for each in predictions)
    assert quality["judge"]["two_sided"] == 2 and quality["judge"]["auc_within_question"] == 0.5


def test_a_judge_that_ranks_like_a_coin_is_said_to_be_none():
    good = {"auc_within_question": 0.9, "two_sided": 9, "spread": 0.2, "calibration_error": 0.1}
    flat, coin = good | {"spread": 0.01}, good | {"auc_within_question": 0.54}
    notes = judge_notes({"student": {"test": {"good": good, "flat": flat, "coin": coin}}})
    assert len(notes) == 2 and "`flat`" in notes[0] and "AUC 0.54" in notes[1]
