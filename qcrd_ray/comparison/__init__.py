"""The comparison: every method with every seed on the same rationales and budget, and a table with
tests that can be trusted.
"""

from qcrd_ray.comparison.files import kept_table
from qcrd_ray.comparison.methods import METHODS, Method, read_methods
from qcrd_ray.comparison.stage import compare

__all__ = ["METHODS", "Method", "compare", "kept_table", "read_methods"]
