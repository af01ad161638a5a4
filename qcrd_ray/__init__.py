"""qcrd_ray: turn a large language model's reasoning into a small model that is cheap to serve.

A distributed Ray application that implements QCRD, Quality-guided Contrastive Rationale
Distillation (arXiv 2405.13014). :mod:`qcrd_ray.api` is how it is called from Python.
"""

from importlib import import_module

__version__ = "0.1.0"
_API = ("load_recipe", "load_student", "run")


def __getattr__(name: str) -> object:
    """Import the functions when they are asked for: `import qcrd_ray` takes no time."""
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("qcrd_ray.api"), name)
