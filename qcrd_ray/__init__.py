"""qcrd_ray: turn a large language model's reasoning into a small model that is cheap to serve.

A distributed Ray application that implements QCRD, Quality-guided Contrastive Rationale
Distillation (arXiv 2405.13014).
"""

__version__ = "0.1.0"
