"""The endpoint on a cluster: how long it waits for its node, and what it takes of a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from qcrd_ray import pipeline
from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.inference import choose_engine, select
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving import endpoint
from qcrd_ray.serving.application import memory_share


def test_the_last_stage_waits_as_long_as_the_recipe_says(exported_student, monkeypatch):
    """Bug guarded: it gave up after 300 s whatever the recipe said, while the data node had left
    after generation and a new one was still booting.
    """
    waited = []

    def wait(demands, *, what, timeout_s):
        waited.append(timeout_s)
        raise MissingResource("no node")

    monkeypatch.setattr(endpoint.cluster, "wait_for_resources", wait)
    folder = SimpleNamespace(student=exported_student, in_step=nullcontext, questions=str)
    for name in ("generate", "train", "evaluate"):
        monkeypatch.setattr(pipeline, name, lambda *arguments: None)
    monkeypatch.setattr(pipeline, "prepare", lambda *arguments, **options: folder)
    monkeypatch.setattr(pipeline, "tracked", lambda *arguments: nullcontext())
    monkeypatch.setattr(pipeline, "iter_questions", lambda file: iter([object()]))
    recipe = SimpleNamespace(serve=ServingRecipe(), ray=SimpleNamespace(schedule_timeout_s=1_800.0))
    stages = SimpleNamespace(stage=lambda name: nullcontext(lambda *arguments: None))
    with pytest.raises(MissingResource):
        pipeline.run(recipe, stages)
    assert waited == [1_800.0]


@pytest.mark.parametrize(
    ("keys", "share"),
    [
        ({}, None),
        ({"replica": {"gpus": 1}}, 0.9),
        ({"replica": {"gpus": 0.5}}, 0.45),
        ({"replica": {"gpus": 2}}, 0.9),
        ({"replica": {"gpus": 0.5}, "gpu_memory_utilization": 0.3}, 0.3),
    ],
)
def test_replicas_that_share_a_gpu_share_its_memory(keys, share):
    """Bug guarded: each took vLLM's 0.92 of the whole card, and the second found none left."""
    assert memory_share(ServingRecipe(**keys)) == share


def test_ctranslate2_without_its_gpu_library_is_refused_by_name(tiny_student, monkeypatch):
    """Bug guarded: the lock brings CUDA 13, and the engine failed at its first question with a
    library's name alone.
    """
    monkeypatch.setattr(select, "pick_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(select, "CUBLAS", "libno-such-cublas.so.12")
    with pytest.raises(UserError, match=r"serve\.engine: ctranslate2 needs libno-such-cublas"):
        choose_engine(tiny_student, "ctranslate2")
    monkeypatch.setattr(select, "CUBLAS", "libc.so.6")
    assert choose_engine(tiny_student, "ctranslate2") == "ctranslate2"
    assert choose_engine(tiny_student, "auto") == "transformers"
