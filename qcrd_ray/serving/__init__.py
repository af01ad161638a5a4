"""Serving: a student folder behind an HTTP endpoint on Ray Serve, with OpenAI's routes and a page.

The folder alone is enough, without its recipe. Imports the packages below: inference, models, run,
cluster, data, recipe and errors.
"""

from qcrd_ray.serving.arguments import read_settings
from qcrd_ray.serving.endpoint import ask_once, bundles, check, example, start, stop, wait

__all__ = ["ask_once", "bundles", "check", "example", "read_settings", "start", "stop", "wait"]
