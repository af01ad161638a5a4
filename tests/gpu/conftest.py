"""On a machine with torch and transformers alone, tier 2 is not even collected."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("ray") and find_spec("pydantic") else ["test_tier2.py"]
