"""What each split of one asking job took."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest

from qcrd_ray.rationales import job


@pytest.fixture
def clock(monkeypatch):
    """A clock that is told the time: ``clock.at = 3.0``."""

    class Told(job._Clock):
        at = 0.0

    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: Told.at))
    yield Told
    Told.at = 0.0


def look(timed, clock, at: float, **rows: int) -> None:
    clock.at = at
    timed.see({split: Counter(rows=count) for split, count in rows.items()})


def test_splits_follow_each_other_and_add_up(clock):
    """Guards a second split that is told to be as slow as both, or a plan that counts it twice."""
    timed = clock(["train", "test"])
    clock.at = 10.0
    timed.start()
    look(timed, clock, 12.0)
    look(timed, clock, 13.0, train=3)
    look(timed, clock, 20.0, train=60, test=1)
    look(timed, clock, 21.0, train=60, test=5)
    clock.at = 22.0
    timed.stop()
    train, test = timed.seconds()
    assert train == (10.0, 3.0)
    assert test == (2.0, 0.0)
    assert train[0] + test[0] == 22.0 - 10.0


@pytest.mark.parametrize(
    "looks",
    [
        [],  # all came between two looks
        [{"test": 5}, {"test": 5, "train": 60}],  # the second was done first
        [{"train": 60}],
    ],
)
def test_no_time_is_negative_or_lost(clock, looks):
    timed = clock(["train", "test"])
    timed.start()
    for at, rows in enumerate(looks, 1):
        look(timed, clock, float(at), **rows)
    clock.at = 9.0
    timed.stop()
    times = list(timed.seconds())
    assert sum(seconds for seconds, _ in times) == 9.0
    assert all(0.0 <= first <= seconds for seconds, first in times)
