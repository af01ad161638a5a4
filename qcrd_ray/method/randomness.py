"""Random numbers that depend on what they are for, and on nothing else: not on the worker, the order or what was drawn before."""

from __future__ import annotations

import hashlib
import random


def keyed_seed(seed: int, *key: object) -> int:
    """A 63-bit seed from the run's seed and a key such as ("augment", question, step). The same on every machine and Python."""
    text = "/".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keyed_random(seed: int, *key: object) -> random.Random:
    """A generator of its own for ``key``; see :func:`keyed_seed`."""
    return random.Random(keyed_seed(seed, *key))
