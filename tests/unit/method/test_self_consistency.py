"""Votes over the answers of several samples: the two shares, ties and abstentions."""

from __future__ import annotations

import pytest

from qcrd_ray.method.self_consistency import count_votes, lead_probability


def test_the_two_shares_differ_where_a_sample_abstains():
    """Bug guarded: one name stood for a share of the votes here and of all samples there."""
    count = count_votes(["7", None, "7", "8", None])
    assert count.leaders == ["7"]
    assert count.share_of_votes("7") == pytest.approx(2 / 3)
    assert count.share_of_samples("7") == pytest.approx(2 / 5)
    assert (count.share_of_votes("8"), count.share_of_samples("8")) == pytest.approx((1 / 3, 1 / 5))


def test_the_shares_agree_where_every_sample_votes():
    count = count_votes(["a", "b", "b"])
    assert count.share_of_votes("b") == count.share_of_samples("b") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answers", "leaders"),
    [(["b", "a", "a", "b", "c"], ["b", "a"]), ([None, None], []), ([], [])],
)
def test_ties_keep_the_order_of_first_appearance_and_no_vote_has_no_leader(answers, leaders):
    assert count_votes(answers).leaders == leaders


def test_the_two_most_are_those_of_the_leader_and_the_runner_up():
    assert [count_votes(each).two_most for each in ("", "a", "aab", "abcab", [None])] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (2, 2),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("leader", "runner_up", "probability"),
    [
        (0, 0, 1 / 2),
        (3, 0, 1 - 1 / 16),  # the integral of 4 p^3 over p > 1/2
        (4, 0, 1 - 1 / 32),
        (2, 1, 11 / 16),  # of 12 p^2 (1 - p)
        (5, 5, 1 / 2),
        (1, 3, 1 - 26 / 32),
    ],
)
def test_the_lead_is_the_posterior_of_two_shares(leader, runner_up, probability):
    assert lead_probability(leader, runner_up) == pytest.approx(probability, abs=1e-15)


def test_the_lead_is_the_integral_of_its_beta_density():
    steps, a, b = 200_000, 9, 4
    density = [(i + 0.5) / steps for i in range(steps)]
    weights = [p ** (a - 1) * (1 - p) ** (b - 1) for p in density]
    above = sum(weights[steps // 2 :]) / sum(weights)
    assert lead_probability(a - 1, b - 1) == pytest.approx(above, abs=1e-8)
