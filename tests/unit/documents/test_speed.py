"""The page of speeds says what is kept."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAIRS = ROOT / "jobs" / "benchmarks" / "pairs.py"


@pytest.fixture(scope="module")
def pairs():
    """The module, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("benchmark_pairs", PAIRS)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_table_is_that_of_the_kept_results(pairs):
    made = pairs.table(ROOT / "jobs" / "recipes" / "results" / "bench")
    assert made in (ROOT / "docs" / "speed.md").read_text()
    assert made.count("\n") > 20


def test_a_target_is_reached_from_its_side(pairs):
    """Guards a smaller-is-better figure that reaches its aim by being large."""
    more, less = pairs.Target(0.8, 0.9), pairs.Target(8, 4, at_most=True)
    assert [more.reached(value) for value in (0.7, 0.8, 0.95)] == ["no", "must", "aim"]
    assert [less.reached(value) for value in (9, 8, 3)] == ["no", "must", "aim"]
