"""The comparison: every method with every seed on the same rationales and budget, and a table with tests that can be trusted."""

from qcrd_ray.comparison.methods import METHODS, Method, read_methods
from qcrd_ray.comparison.stage import compare, folder_of

__all__ = ["METHODS", "Method", "compare", "folder_of", "read_methods"]
