"""Generation behind one small protocol: what samples negatives, validates, evaluates and serves.

transformers   both kinds, also around a module in training; every sample is reproducible:
:mod:`qcrd_ray.inference.transformers_engine` ctranslate2    encoder-decoders of the T5 family on
CPUs, for serving: :mod:`qcrd_ray.inference.ctranslate2_engine`
vllm           decoder-only models, for serving: :mod:`qcrd_ray.inference.vllm_engine`
"""

from qcrd_ray.inference.base import Engine, Generated
from qcrd_ray.inference.select import EngineName, choose_engine, load_engine
from qcrd_ray.inference.transformers_engine import TransformersEngine, sample

__all__ = [
    "Engine",
    "EngineName",
    "Generated",
    "TransformersEngine",
    "choose_engine",
    "load_engine",
    "sample",
]
