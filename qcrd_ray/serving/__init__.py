"""Serving: a student folder behind an HTTP endpoint, on Ray Serve. The folder alone is enough; no
recipe is needed.
"""

from qcrd_ray.serving.arguments import read_settings
from qcrd_ray.serving.endpoint import bundles, check, example, headers, start, stop, wait

__all__ = ["bundles", "check", "example", "headers", "read_settings", "start", "stop", "wait"]
