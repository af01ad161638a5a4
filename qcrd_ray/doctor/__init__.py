"""The doctor: checks of what would fail later in a run, each with what to do about it.

Imports the packages below, whose own checks it calls: rationales, training, serving, teacher,
models, tasks, run, cluster, data, recipe and errors.
"""

from qcrd_ray.doctor.cluster_checks import STAGES, check_cluster, demands
from qcrd_ray.doctor.diagnosis import CheckResult, diagnose, preflight, preflight_cluster

__all__ = [
    "STAGES",
    "CheckResult",
    "check_cluster",
    "demands",
    "diagnose",
    "preflight",
    "preflight_cluster",
]
