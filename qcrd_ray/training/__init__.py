"""Training: Ray Train and DeepSpeed around :mod:`qcrd_ray.method`. Rationale sets in, the best student by validation out."""

from __future__ import annotations

from qcrd_ray.training.trainer import train

__all__ = ["train"]
