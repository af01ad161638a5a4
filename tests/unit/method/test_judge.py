"""The judge learns from evidence, weighs votes, and says how sure it is."""

from __future__ import annotations

from math import log

import pytest
import torch

from qcrd_ray.method.judge import (
    Judge,
    cross_fitted_scores,
    fit_confidence,
    fit_judge,
    log_odds,
    relative,
)
from qcrd_ray.method.ranking import (
    expected_calibration_error,
    judge_quality,
    within_question_auc,
)
from qcrd_ray.method.self_consistency import weigh_votes


def planted(questions: int, samples: int, *, seed: int = 0):
    """Evidence whose first number, less the question's own level, tells right from wrong.

    The level differs by far more between questions than between the samples of one.
    """
    random = torch.Generator().manual_seed(seed)
    evidence, right = [], []
    for _ in range(questions):
        level = 10 * torch.randn((), generator=random).item()
        of_question = (torch.rand(samples, generator=random) < 0.5).tolist()
        noise = torch.randn(samples, 2, generator=random)
        evidence.append(
            [
                (level - (1.5 if is_right else 0.0) + 0.5 * noise[i, 0].item(), noise[i, 1].item())
                for i, is_right in enumerate(of_question)
            ]
        )
        right.append(of_question)
    return evidence, right


def auc(scores, right):
    return within_question_auc(
        [[s for s, r in zip(a, b, strict=True) if r] for a, b in zip(scores, right, strict=True)],
        [
            [s for s, r in zip(a, b, strict=True) if not r]
            for a, b in zip(scores, right, strict=True)
        ],
    )


def test_a_questions_samples_are_judged_beside_each_other():
    # guards against judging by the raw number alone, which here says only how hard a question is
    evidence, right = planted(300, 6)
    fresh, truth = planted(300, 6, seed=1)
    judge = fit_judge(evidence, right, ["loss", "noise"])
    found = auc(judge.score(fresh), truth)
    assert found is not None and found > 0.95


def test_the_relative_evidence_is_the_number_and_its_distance_from_the_mean():
    rows = relative([[(1.0, 4.0), (3.0, 4.0)], [], [(7.0, 0.0)]])
    assert rows.tolist() == [[1, 4, -1, 0], [3, 4, 1, 0], [7, 0, 0, 0]]


def test_scores_keep_the_shape_of_questions_without_samples():
    judge = Judge(["loss"], hidden=2)
    scores = judge.score([[], [(1.0,), (2.0,)], []])
    assert [len(each) for each in scores] == [0, 2, 0]
    assert judge.score([[], []]) == [[], []]


def test_cross_fitted_scores_do_not_see_their_own_question():
    # labels are coins: a judge that had seen them would rank above chance
    evidence, _ = planted(60, 4)
    random = torch.Generator().manual_seed(5)
    right = [(torch.rand(4, generator=random) < 0.5).tolist() for _ in evidence]
    seen = auc(fit_judge(evidence, right, ["a", "b"]).score(evidence), right)
    unseen = auc(cross_fitted_scores(evidence, right, ["a", "b"]), right)
    assert seen > 0.6 and abs(unseen - 0.5) < 0.12


def test_a_seed_gives_the_same_judge_and_leaves_the_global_state_alone():
    evidence, right = planted(20, 4)
    state = torch.random.get_rng_state()
    first, second = (fit_judge(evidence, right, ["a", "b"], seed=3) for _ in range(2))
    assert first.score(evidence) == second.score(evidence)
    assert torch.equal(state, torch.random.get_rng_state())


def test_samples_that_are_all_wrong_still_give_a_judge():
    evidence, right = planted(10, 3)
    judge = fit_judge(evidence, [[False] * 3 for _ in right], ["a", "b"])
    assert all(0 <= score < 0.2 for each in judge.score(evidence) for score in each)


def test_a_number_that_never_changes_does_not_divide_by_zero():
    evidence = [[(0.5,), (0.5,)], [(0.5,), (0.5,)]]
    judge = fit_judge(evidence, [[True, False], [False, True]], ["constant"])
    assert all(0 < score < 1 for each in judge.score(evidence) for score in each)


def test_a_saved_judge_scores_as_before(tmp_path):
    evidence, right = planted(30, 4)
    judge = fit_judge(evidence, right, ["a", "b"])
    judge.slope, judge.offset = 0.7, -0.2
    judge.save(tmp_path, inputs=["student"])
    again = Judge.load(tmp_path)
    assert again.features == ("a", "b") and again.score(evidence) == judge.score(evidence)
    assert again.confidence(0.8) == judge.confidence(0.8)


# --- Confidence ---


def test_platts_scaling_finds_the_curve_that_made_the_data():
    # 1,000 shares at 0.9 of which 70 % are right, 1,000 at 0.5 of which 40 % are
    shares = [0.9] * 1_000 + [0.5] * 1_000
    right = [True] * 700 + [False] * 300 + [True] * 400 + [False] * 600
    slope, offset = fit_confidence(shares, right)
    assert offset == pytest.approx(log(0.4 / 0.6), abs=0.01)
    assert slope * log_odds(0.9) + offset == pytest.approx(log(0.7 / 0.3), abs=0.02)


def test_a_clean_separation_has_a_finite_slope():
    slope, offset = fit_confidence([0.99] * 20 + [0.2] * 20, [True] * 20 + [False] * 20)
    judge = Judge(["a"], hidden=1)
    judge.slope, judge.offset = slope, offset
    assert 0.9 < judge.confidence(1.0) < 1 and 0 < judge.confidence(0.0) < 0.1


def test_the_calibration_error_is_a_mean_over_bins_of_the_gap():
    # bin 0.9: two at 0.95, one right: |0.95 - 0.5| = 0.45; bin 0.2: one at 0.25, right: 0.75
    error = expected_calibration_error([0.95, 0.95, 0.25], [True, False, True])
    assert error == pytest.approx((2 * 0.45 + 0.75) / 3)
    # a gap within a bin cancels out, as it should: 0.6 on average, and 0.5 right
    assert expected_calibration_error([0.62, 0.68], [True, False]) == pytest.approx(0.15)
    assert expected_calibration_error([1.0], [True]) == 0.0
    assert expected_calibration_error([], []) is None


def test_the_quality_counts_only_questions_with_both_kinds():
    quality = judge_quality(
        [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]],
        [[True, False], [True, False], [True, True]],
        confidences=[1.0, 1.0, 1.0],
        wins=[True, False, True],
    )
    assert quality["auc_within_question"] == 0.5 and quality["two_sided"] == 2
    assert quality["spread"] == pytest.approx(0.2887, abs=1e-4)
    assert quality["calibration_error"] == pytest.approx(1 / 3)


# --- Votes ---


def test_a_samples_weight_decides_and_one_without_an_answer_counts_against_all():
    shares = weigh_votes(["7", "8", "8", None], [3.0, 1.0, 1.0, 1.0])
    assert shares == {"7": 0.5, "8": pytest.approx(1 / 3)}
    assert weigh_votes([None, None], [1.0, 1.0]) == {}
    assert weigh_votes(["7"], [0.0]) == {"7": 0.0}, "no weight at all divides by zero"
