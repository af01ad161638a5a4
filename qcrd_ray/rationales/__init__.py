"""The rationales stage: ask the teacher K samples a question, parse them, vote on them, store
them.
"""

from qcrd_ray.rationales.stage import bundles, generate, generate_splits
from qcrd_ray.rationales.store import Manifest

__all__ = ["Manifest", "bundles", "generate", "generate_splits"]
