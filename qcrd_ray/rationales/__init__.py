"""The rationales stage: ask the teacher K samples a question, parse, vote and store them.

It may import teacher, models, tasks, run, cluster, data, recipe and method, and no other stage.
"""

from qcrd_ray.rationales.reuse import check_reuse, take_over
from qcrd_ray.rationales.stage import DEMANDS, bundles, generate, generate_splits

__all__ = ["DEMANDS", "bundles", "check_reuse", "generate", "generate_splits", "take_over"]
