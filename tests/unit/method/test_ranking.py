"""Accuracy with its interval, AUC and correlation: against known values and against their
definitions.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.method.ranking import accuracy, auc, length_correlation, within_question_auc


def test_wilson_interval_against_published_values():
    """Newcombe 1998, table I: 81/263 and 15/148 at 95 %."""
    assert accuracy(81, 263)[2:] == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)
    assert accuracy(15, 148)[2:] == pytest.approx((0.1014, 0.0624, 0.1605), abs=5e-5)


def test_wilson_interval_at_the_ends_stays_within_0_and_1():
    """The normal approximation gives [0, 0] for 0 of 20."""
    assert accuracy(0, 20)[2:] == pytest.approx((0.0, 0.0, 0.1611), abs=5e-5)
    assert accuracy(20, 20)[2:] == pytest.approx((1.0, 0.8389, 1.0), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_proportion(counts):
    result = accuracy(*counts)
    assert 0.0 <= result.low <= result.accuracy <= result.high <= 1.0


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_no_proportion_is_refused(correct, total):
    """An accuracy of 0 over nothing would look like a result."""
    with pytest.raises(ValueError, match="no proportion"):
        accuracy(correct, total)


scores = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=8)


@given(scores, scores)
def test_auc_is_the_chance_of_ranking_a_pair_rightly_ties_half(positive, negative):
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_of_a_constant_judge_is_a_half_and_of_one_class_is_nothing():
    assert auc([0.5] * 3, [0.5] * 2) == 0.5
    assert auc([], [0.5]) is None and auc([0.5], []) is None


def test_within_question_auc_sees_through_a_judge_of_difficulty():
    """It gives all rationales of an easy question a high score: AUC over all is high, within a
    question it knows nothing.
    """
    positive, negative = [[0.9] * 4, [0.1]], [[0.9], [0.1] * 4]
    assert auc([0.9] * 4 + [0.1], [0.9] + [0.1] * 4) == pytest.approx(0.8)
    assert within_question_auc(positive, negative) == 0.5
    assert within_question_auc([[1.0], []], [[], [0.0]]) is None


def test_length_correlation():
    assert length_correlation([0.1, 0.2, 0.3], [10, 20, 30]) == pytest.approx(1.0)
    assert length_correlation([0.3, 0.2, 0.1], [10, 20, 30]) == pytest.approx(-1.0)
    assert length_correlation([0.5, 0.5], [1, 2]) is None and length_correlation([0.5], [1]) is None
