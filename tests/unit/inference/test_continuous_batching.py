"""Continuous batching around a scripted engine: who joins when, and what a dead engine leaves."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from qcrd_ray.inference.continuous_batching import ContinuousBatching

WAIT_S = 20


class ScriptedEngine:
    """Writes one token of every running text a step; a prompt is the number of its tokens.

    ``gate`` lets a step pass each time it is released.
    """

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.steps: list[set[str]] = []  # which texts each step wrote
        self.gate = threading.Semaphore(0)
        self.dies = False

    def add_request(self, name: str, prompt: int, params: object) -> None:
        if prompt < 1:
            raise ValueError("an empty prompt")
        self.left[name] = prompt

    def step(self) -> list[SimpleNamespace]:
        assert self.gate.acquire(timeout=WAIT_S)
        if self.dies:
            raise MemoryError("the GPU is full")
        self.steps.append(set(self.left))
        self.left = {name: tokens - 1 for name, tokens in self.left.items()}
        outputs = []
        for name, tokens in list(self.left.items()):
            self.written[name] = self.written.get(name, 0) + 1
            outputs.append(
                SimpleNamespace(request_id=name, finished=not tokens, tokens=self.written[name])
            )
            if not tokens:
                del self.left[name]
        return outputs

    def abort_request(self, names: list[str]) -> None:
        for name in names:
            del self.left[name]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def batching(engine) -> ContinuousBatching:
    return ContinuousBatching(engine)


def submit(batching: ContinuousBatching, tokens: int):
    return batching.submit(tokens, SimpleNamespace())


def until(holds) -> None:
    event = threading.Event()
    for _ in range(200 * WAIT_S):
        if holds():
            return
        event.wait(0.005)
    raise AssertionError("it never came true")


def test_a_text_joins_and_leaves_while_another_is_written(engine, batching):
    """Bug guarded: a caller waited for the whole batch before its own, however long its texts."""
    long = submit(batching, 5)
    engine.gate.release()
    until(lambda: len(engine.steps) == 1)
    short = submit(batching, 1)
    engine.gate.release(2)  # the long one's next step may have begun before the short one came
    short.result(WAIT_S)
    assert not long.done()
    engine.gate.release(5)
    long.result(WAIT_S)
    assert {"1", "2"} in engine.steps and len(engine.steps) == 5


def test_a_refused_request_fails_alone(engine, batching):
    other, refused = submit(batching, 1), submit(batching, 0)
    engine.gate.release()
    with pytest.raises(ValueError, match="an empty prompt"):
        refused.result(WAIT_S)
    other.result(WAIT_S)


def test_weights_are_swapped_when_nothing_is_written(engine, batching):
    """Bug guarded: a text whose first half is one model's and whose second half another's."""
    done = submit(batching, 3)
    engine.gate.release(3)
    assert batching.call(lambda: dict(engine.left)) == {}
    assert done.done()


def test_a_dead_engine_tells_all_who_wait_and_all_who_come(engine, batching):
    """Bug guarded: callers that waited for ever."""
    waiting = [submit(batching, 5), submit(batching, 2)]
    engine.dies = True
    engine.gate.release(2)
    for each in waiting:
        with pytest.raises(MemoryError, match="the GPU is full"):
            each.result(WAIT_S)
    with pytest.raises(RuntimeError, match="the engine has died"):
        submit(batching, 1)


def test_a_text_is_heard_after_each_step_and_ended_by_its_hearer(engine, batching):
    """Bug guarded: a caller who had hung up kept its place in the engine until its text's end."""
    heard = []

    def hear(output):
        heard.append(output.tokens)
        return len(heard) == 2

    left = batching.submit(5, SimpleNamespace(), hear)
    stays = submit(batching, 4)
    engine.gate.release(4)
    assert left.result(WAIT_S).tokens == 2 and heard == [1, 2]
    assert stays.result(WAIT_S).tokens == 4
    assert [len(step) for step in engine.steps[-2:]] == [1, 1], "its place was not given back"


def test_a_finished_text_is_not_ended_twice(engine, batching):
    """Bug guarded: vLLM is asked to abort what it has finished, and its next step fails."""
    done = batching.submit(1, SimpleNamespace(), lambda output: True)
    engine.gate.release(2)
    assert done.result(WAIT_S).finished
    assert submit(batching, 1).result(WAIT_S).finished
