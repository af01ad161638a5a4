"""Text from a student: three engines behind one protocol, the two heads, and batched answers.

It may import models, tasks, run, data, recipe and method; the stages that generate text use it.

- transformers: both kinds of student, with reproducible samples;
  see :mod:`qcrd_ray.inference.transformers_engine`.
- ctranslate2: the T5 family on CPUs, for serving; see :mod:`qcrd_ray.inference.ctranslate2_engine`.
- vllm: decoder-only models, for serving; see :mod:`qcrd_ray.inference.vllm_engine`.
"""

from qcrd_ray.inference.base import Engine, EngineOptions, Generated
from qcrd_ray.inference.select import EngineName, choose_engine, load_engine
from qcrd_ray.inference.transformers_engine import TransformersEngine

__all__ = [
    "Engine",
    "EngineName",
    "EngineOptions",
    "Generated",
    "TransformersEngine",
    "choose_engine",
    "load_engine",
]
