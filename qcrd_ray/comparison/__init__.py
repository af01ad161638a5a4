"""The comparison: every method with every seed on the same rationales, and a table of paired tests.

Imports the packages below: training, evaluation, inference, tasks, run, cluster, data, method,
recipe and errors.
"""

from qcrd_ray.comparison.files import kept_table
from qcrd_ray.comparison.methods import read_methods
from qcrd_ray.comparison.stage import compare

__all__ = ["compare", "kept_table", "read_methods"]
