"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest
from method_tiny import KINDS


@pytest.fixture(params=KINDS)
def tiny(request):
    """A function that builds a tiny student in memory, for each kind of student."""
    return KINDS[request.param]
