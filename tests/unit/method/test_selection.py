"""MinMax: which candidate of a question is trained on."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.method.selection import select


def chosen(
    nll: list[float], positives: list[list[int]], negatives: list[list[int]], scheme: str = "minmax"
) -> tuple[list[int], list[int]]:
    selection = select(
        torch.tensor(nll), torch.tensor(positives), torch.tensor(negatives), scheme=scheme
    )
    return selection.positive[:, 0].tolist(), selection.negative[:, 0].tolist()


def test_minmax_takes_the_likeliest_positive_and_the_least_likely_negative():
    assert chosen([2.0, 1.0, 1.0, 2.0], [[0, 1]], [[2, 3]]) == ([1], [3])
    assert chosen([2.0, 1.0, 1.0, 2.0], [[0, 1]], [[2, 3]], "maxmin") == ([0], [2])


def test_ties_go_to_the_lowest_index():
    """amin would have split the gradient between equal candidates; a duplicated rationale must
    count once.
    """
    for scheme in ("minmax", "maxmin"):
        assert chosen([1.0, 1.0, 1.0, 1.0], [[0, 1]], [[2, 3]], scheme) == ([0], [2])


def test_padding_is_never_chosen():
    """-1 must not be read as the last candidate, nor a padded loss win a minimum."""
    assert chosen([5.0, 0.0, 9.0], [[0, -1]], [[1, -1]]) == ([0], [1])


def test_an_empty_side_is_minus_one():
    assert chosen([5.0], [[0]], [[-1]]) == ([0], [-1])
    assert chosen([5.0], [[-1]], [[0]]) == ([-1], [0])


def test_a_batch_without_questions_selects_nothing():
    empty = torch.empty(0, 1, dtype=torch.long)
    selection = select(torch.tensor([0.0]), empty, empty)
    assert selection.positive.shape == selection.negative.shape == (0, 1)


def test_selection_carries_no_gradient():
    nll = torch.tensor([1.0, 2.0], requires_grad=True)
    assert not any(
        side.requires_grad for side in select(nll, torch.tensor([[0]]), torch.tensor([[1]]))
    )


finite = st.floats(0.0, 20.0, width=32)


@given(st.lists(finite, min_size=1, max_size=6), st.lists(finite, min_size=1, max_size=6))
def test_agrees_with_python(positive, negative):
    nll = positive + negative
    members = [list(range(len(positive)))], [list(range(len(positive), len(nll)))]
    low, high = positive.index(min(positive)), len(positive) + negative.index(max(negative))
    assert chosen(nll, *members) == ([low], [high])
