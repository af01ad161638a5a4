"""The two small models that the demo runs on, and the code that makes them (``make.py``) and measures them (``check.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def demo_model(name: Literal["teacher", "student"]) -> Path:
    """The folder of a shipped model: ``teacher`` is a decoder-only language model, ``student`` an encoder-decoder to be trained further."""
    return Path(__file__).parent / name
