"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest
import torch
from method_tiny import KINDS

# Tiny models gain nothing from threads, which fight for the cores with whatever else runs.
torch.set_num_threads(1)


@pytest.fixture(params=KINDS)
def tiny(request):
    """A function that builds a tiny student in memory, for each kind of student."""
    return KINDS[request.param]
