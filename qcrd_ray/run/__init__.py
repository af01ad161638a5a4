"""A run as a whole: its folder and files, storage, progress, tracking, results and provenance.

Imports `data` and `recipe`, and from `cluster` whether this process is a submitted job.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Lets `qcrd_ray.run(recipe)` be what it says: this package and that function share a name."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return import_module("qcrd_ray.api").run(*arguments, **named)


sys.modules[__name__].__class__ = _Callable
