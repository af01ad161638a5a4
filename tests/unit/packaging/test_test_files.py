"""The test files can be collected in one call, as `make test-long` and `make cluster-test` do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]


def test_no_two_have_one_name():
    """Bug guarded: pytest takes a name for one module, so that two `test_secrets.py` in different
    folders ended every call that collected both; each was collected alone in `make test`.
    """
    names = Counter(file.name for file in TESTS.rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]
