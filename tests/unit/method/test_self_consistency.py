"""Votes over the answers of several samples: the two shares, ties and abstentions."""

from __future__ import annotations

import pytest

from qcrd_ray.method.self_consistency import count_votes


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
