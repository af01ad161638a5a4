"""Fixtures of the unit tests."""

from __future__ import annotations

import logging

import pytest
import torch
from method_tiny import KINDS

# Tiny models gain nothing from threads, which fight for the cores with whatever else runs.
torch.set_num_threads(1)


@pytest.fixture(params=KINDS)
def tiny(request):
    """A function that builds a tiny student in memory, for each kind of student."""
    return KINDS[request.param]


@pytest.fixture(autouse=True)
def _logging_goes_on():
    """The end of an interrupted command turns logging off, for a process that ends."""
    yield
    logging.disable(logging.NOTSET)
