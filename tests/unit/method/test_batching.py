"""The batch of a step is a pure function of (seed, step); workers only share it out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.method.batching import Rounds, global_batch, keyed_random, keyed_seed, shard_batch

SIZES = {"questions": 50, "batch_size": 8}


def test_a_resumed_run_sees_the_same_batches():
    """Step 7 computed directly is the seventh of the sequence: nothing is carried from step to
    step.
    """
    sequence = [global_batch(seed=1, step=step, **SIZES) for step in range(20)]
    assert global_batch(seed=1, step=7, **SIZES) == sequence[7]


def test_seeds_and_epochs_differ():
    assert global_batch(seed=1, step=0, **SIZES) != global_batch(seed=2, step=0, **SIZES)
    assert global_batch(seed=1, step=0, questions=8, batch_size=8) != global_batch(
        seed=1, step=1, questions=8, batch_size=8
    )


@given(
    seed=st.integers(0, 2**40),
    questions=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    epochs=st.integers(1, 3),
)
def test_each_epoch_visits_each_question_once(seed, questions, batch_size, epochs):
    steps = -(-epochs * questions // batch_size)
    stream = [
        i
        for step in range(steps)
        for i in global_batch(seed=seed, step=step, questions=questions, batch_size=batch_size)
    ]
    for epoch in range(epochs):
        assert sorted(stream[epoch * questions : (epoch + 1) * questions]) == list(range(questions))


def test_batches_are_stable_over_versions():
    """A run that is resumed with a newer release must not see other batches."""
    assert global_batch(seed=0, step=0, questions=10, batch_size=10) == [
        9,
        4,
        5,
        6,
        0,
        2,
        1,
        8,
        7,
        3,
    ]


def test_no_questions_is_refused():
    with pytest.raises(ValueError, match="no question"):
        global_batch(seed=0, step=0, questions=0, batch_size=4)


@given(
    count=st.integers(0, 40),
    workers=st.integers(1, 7),
    micro=st.none() | st.integers(1, 9),
    lengths=st.none() | st.just([3, 1, 4, 1, 5, 9, 2, 6] * 5),
)
def test_shards_keeps_every_item_once_and_gives_all_workers_as_many_micro_batches(
    count, workers, micro, lengths
):
    """ZeRO 3 hangs when one worker makes a forward pass less than another."""
    shards = shard_batch(
        list(range(count)),
        workers=workers,
        micro_batch_size=micro,
        lengths=lengths and lengths[:count],
    )
    assert sorted(item for worker in shards for batch in worker for item in batch) == list(
        range(count)
    )
    assert (
        len(shards) == workers
        and len({len(worker) for worker in shards}) == 1
        and len(shards[0]) >= 1
    )
    share = -(-count // workers)
    assert all(len(batch) <= (micro or share) for worker in shards for batch in worker)
    totals = [sum(map(len, worker)) for worker in shards]
    assert max(totals) - min(totals) <= 1


def test_shards_puts_like_lengths_together():
    """Padding without length buckets cost 30 %."""
    lengths = [9, 1, 8, 2, 7, 3, 6, 4]
    shards = shard_batch(lengths, workers=2, micro_batch_size=2, lengths=lengths)
    assert shards == [[[1, 3], [6, 8]], [[2, 4], [7, 9]]]


def test_rounds_of_steps():
    rounds = Rounds(count=4, unit="steps", size=25, **SIZES, seed=0)
    assert (rounds.steps_per_round, rounds.total_steps, rounds.steps(2)) == (25, 100, range(50, 75))


def test_rounds_of_epochs_take_whole_steps():
    rounds = Rounds(count=3, unit="epochs", size=2, **SIZES, seed=0)
    assert (rounds.steps_per_round, rounds.total_steps) == (13, 39)


@given(
    count=st.integers(1, 9),
    unit=st.sampled_from(["steps", "epochs"]),
    size=st.integers(1, 9),
    questions=st.integers(1, 99),
)
def test_rounds_part_the_steps(count, unit, size, questions):
    rounds = Rounds(count=count, unit=unit, size=size, questions=questions, batch_size=8, seed=0)
    steps = [step for round in range(count) for step in rounds.steps(round)]
    assert steps == list(range(rounds.total_steps))


def test_keyed_randomness_depends_on_its_key_alone():
    """Drawing for one question must not move another's numbers."""
    first = keyed_random(0, "augment", 3, 7)
    keyed_random(0, "augment", 2, 7).random()
    assert first.random() == keyed_random(0, "augment", 3, 7).random()
    assert (
        len(
            {
                keyed_seed(0, "a", 1, 11),
                keyed_seed(0, "a", 11, 1),
                keyed_seed(1, "a", 1, 11),
                keyed_seed(0, "b", 1, 11),
            }
        )
        == 4
    )
    assert 0 <= keyed_seed(0, "x") < 2**63


@pytest.mark.parametrize(
    ("every", "first"), [(None, None), (3, None), (4, 16), (3, 13), (10, None)]
)
def test_stretches_are_the_steps_that_are_left_cut_at_the_same_places(every, first):
    """A round that goes on must be cut where it would have been cut without the interruption."""
    rounds = Rounds(count=3, unit="steps", size=10, questions=50, batch_size=5, seed=0)
    stretches = rounds.stretches(1, every, first=first)
    assert [step for part in stretches for step in part] == list(range(first or 10, 20))
    whole = {part.stop for part in rounds.stretches(1, every)}
    assert {part.stop for part in stretches} <= whole
    assert all(len(part) <= (every or 10) for part in stretches)
