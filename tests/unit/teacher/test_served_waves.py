"""The served teacher in waves: how many samples it asks its replicas for, and with which seed."""

from __future__ import annotations

import asyncio

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.recipe import SamplingRecipe, ServeTeacher
from qcrd_ray.teacher import TeacherError, TeacherRequest
from qcrd_ray.teacher.serve import ServedTeacher


class Replicas:
    """A handle that writes down what it is asked, and answers with ``short`` samples too few."""

    def __init__(self, short: int = 0):
        self.ask, self.short, self.asked = self, short, []

    async def remote(self, prompts, sampling):
        self.asked.append((prompts, sampling))
        samples = [("8", "stop", 1, "")] * (sampling["n"] - self.short)
        return [{"prompt_tokens": 3, "samples": samples} for _ in prompts]


def asked_with(*waves: tuple[str, int, int], seed: int = 0, short: int = 0) -> list[dict]:
    """The sampling that the replicas get for each of ``waves``: ids, samples, first."""
    teacher = ServedTeacher(
        ServeTeacher(source="serve", model="m"),
        SamplingRecipe(k=10, adaptive={}),
        seed=seed,
        application="a",
        requests_in_flight=1,
        schedule_timeout_s=1.0,
    )
    replicas = Replicas(short)
    teacher.__dict__["_handle"] = replicas
    for ids, samples, first in waves:
        asks = [TeacherRequest(Question(id=id, question="?"), "?", samples, first) for id in ids]
        answers = asyncio.run(teacher.complete(asks))
        assert [len(answer.completions) for answer in answers] == [samples] * len(ids)
    return [sampling for _, sampling in replicas.asked]


def test_the_first_wave_is_sampled_as_one_without_waves():
    """A seed would take vLLM's slower path, and change what a recipe without waves gets."""
    (first,) = asked_with(("pq", 4, 0))
    assert first["n"] == 4 and not {"seed", "k", "adaptive"} & first.keys()


def test_each_further_wave_has_a_seed_of_its_own():
    """Bug guarded: every replica begins at the engine's seed, so one that is asked its first
    request repeated what another had written.
    """
    waves = [("p", 3, 4), ("p", 2, 7), ("q", 3, 4), ("pq", 3, 4)]
    seeds = [sampling["seed"] for sampling in asked_with(*waves)]
    seeds += [sampling["seed"] for sampling in asked_with(*waves, seed=1)]
    assert len(set(seeds)) == 8
    assert min(abs(a - b) for a in seeds for b in seeds if a != b) > 40, "vLLM counts up from it"
    assert seeds[:4] == [sampling["seed"] for sampling in asked_with(*waves)], "in every process"


def test_a_replica_that_gives_too_few_is_asked_again():
    with pytest.raises(TeacherError, match="asked for 3 samples of each of 1 questions, got"):
        asked_with(("p", 3, 4), short=1)


@pytest.mark.parametrize("kind", ["CompletionRequest", "ChatCompletionRequest"])
def test_vllm_takes_the_number_and_the_seed(kind):
    models = pytest.importorskip("ray.serve.llm.openai_api_models")
    text = {"prompt": "1"} if kind == "CompletionRequest" else {"messages": []}
    (sent,) = asked_with(("p", 3, 4))
    sampled = getattr(models, kind)(model="m", **text, **sent).to_sampling_params(9, {})
    assert (sampled.n, sampled.seed) == (3, sent["seed"])
