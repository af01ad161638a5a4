"""When a vote is settled: closed forms of both rules, and that no sample is asked too many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from qcrd_ray.method.self_consistency import count_votes
from qcrd_ray.rationales.settled import next_wave
from qcrd_ray.recipe import AdaptiveRecipe


def posterior(answers: str, *, k: int, threshold: float = 0.95) -> int:
    """``answers`` has a letter for each sample; a dot abstains."""
    return next_wave(said(answers), k=k, adaptive=AdaptiveRecipe(threshold=threshold))


def window(answers: str, *, k: int, window: int) -> int:
    return next_wave(said(answers), k=k, adaptive=AdaptiveRecipe(rule="window", window=window))


def said(answers: str) -> list[str | None]:
    return [None if each == "." else each for each in answers]


def asked(answers: list[str | None], *, k: int, adaptive: AdaptiveRecipe) -> int:
    """How many samples a question takes whose samples vote thus."""
    count = 0
    while wave := next_wave(answers[:count], k=k, adaptive=adaptive):
        count += wave
    return count


def winner(answers: Sequence[str | None]) -> str | None:
    leaders = count_votes(answers).leaders
    return leaders[0] if len(leaders) == 1 else None


@pytest.mark.parametrize(
    ("answers", "wave"),
    [
        ("", 4),  # four that agree: 1 - 1/32 = 0.969; three: 0.9375
        ("aaaa", 0),
        ("aaab", 3),  # (6, 1): 1 - 9/256 = 0.965; (5, 1): 1 - 8/128 = 0.9375
        ("aaabaaa", 0),
        ("aabb", 6),  # (8, 2): 1 - 67/2048 = 0.967; (7, 2): 1 - 56/1024 = 0.945
        ("....", 4),  # asked, and without a vote
    ],
)
def test_a_wave_is_as_many_as_could_settle_the_posterior(answers, wave):
    assert posterior(answers, k=40) == wave


def test_the_rest_that_cannot_change_the_winner_is_not_asked():
    assert posterior("", k=5) == 3
    assert posterior("aaa", k=5) == 0
    assert posterior("aab", k=5) == 1
    assert posterior("aaba", k=5) == 0
    assert posterior("aabb", k=5) == 1
    assert posterior("aabba", k=5) == 0  # all are asked


def test_a_tie_that_is_still_possible_is_waited_for():
    """Bug guarded: a lead of as many votes as are left can end in a tie, which is no vote."""
    assert posterior("aaab.", k=7, threshold=1.0) == 1
    assert posterior("aaab..", k=7, threshold=1.0) == 0


@pytest.mark.parametrize("k", [3, 4, 5, 6, 7])
def test_at_threshold_1_the_vote_is_that_of_all_samples(k):
    adaptive, saved = AdaptiveRecipe(threshold=1.0), 0
    for answers in product(("a", "b", "c", None), repeat=k):
        count = asked(list(answers), k=k, adaptive=adaptive)
        assert winner(answers[:count]) == winner(answers)
        saved += k - count
    assert saved > 0


@pytest.mark.parametrize("threshold", [0.7, 0.9, 0.95])
def test_no_sample_is_asked_that_one_at_a_time_would_have_saved(threshold):
    """Bug guarded: waves of a fixed size run past the sample that settled the vote."""
    adaptive = AdaptiveRecipe(threshold=threshold)
    for answers in map(list, product(("a", "b", None), repeat=7)):
        one_by_one = next(n for n in range(8) if not next_wave(answers[:n], k=7, adaptive=adaptive))
        assert asked(answers, k=7, adaptive=adaptive) == one_by_one


@pytest.mark.parametrize(
    ("answers", "wave"),
    [
        ("", 3),
        ("aaa", 0),
        ("aab", 3),
        ("a.a", 3),  # a window with an abstention does not agree
        ("...", 3),
        ("aabbbb", 0),
        ("aabaacbbb", 3),  # the window agrees on an answer that is only level
        ("abcabcabc", 3),
        ("abcabcabcab", 1),  # the rest is less than a window
    ],
)
def test_a_window_that_agrees_settles_the_vote(answers, wave):
    assert window(answers, k=12, window=3) == wave


def test_windows_end_too_where_the_rest_cannot_change_the_winner():
    assert window("aabaac", k=12, window=3) == 3
    assert window("aabaacaab", k=12, window=3) == 0


def test_windows_do_not_overlap():
    """Bug guarded: b b b across two windows is not one window of ESC."""
    assert window("abbbac", k=30, window=3) == 3
