"""The engine for decoder-only models: real vLLM on a CPU, a random Llama."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from endpoint_tiny import with_judge
from listener import Ear
from teacher_tiny import write_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from qcrd_ray.data.records import Question
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.answering import AnswerRequest, JudgeRequest, Student
from qcrd_ray.models.student_folder import StudentFolder

pytestmark = pytest.mark.integration


def test_vllm_writes_what_hugging_face_writes(tmp_path):
    """In a process of its own, because of what vLLM leaves behind in one.

    It sets environment variables, and operators that it registers with torch keep Triton's types
    alive: at the end of the process, Triton's bindings (nanobind) print a page of leaked types.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(check_engine, tmp_path).result()


def test_a_judge_reads_beside_vllm(exported_decoder, tmp_path):
    """vLLM keeps no model that gives the likelihood of a text; the judge has one of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(check_judge, exported_decoder, tmp_path / "student").result()


def check_judge(exported: Path, folder: Path) -> None:
    """The samples are vLLM's, and their scores those that a student on transformers gives them."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    opened = StudentFolder.open(with_judge(exported, folder))
    served = Student(opened, engine="vllm", batch_size=4)
    served.warm_up()
    question = Question(id="1", question="Tom has 3 apples and buys 4 more. How many has he?")
    request = AnswerRequest(
        question=question, head="rationale", sampling=served.vote_sampling(6, seed=3)
    )
    (samples,) = served.generate([request])
    judging = [JudgeRequest(question=question, samples=tuple(samples))]
    (scores,) = served.judge_samples(judging)
    assert len(set(scores)) > 1 and not served.judge.uses_engine
    other = Student(opened, engine="transformers", batch_size=4)
    assert scores == pytest.approx(other.judge_samples(judging)[0], abs=1e-5)


def check_engine(folder: Path) -> None:
    """Greedy texts equal `generate`; n samples differ, and are equal for equal seeds.

    Another model's weights are taken in place.
    """
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    first, other = write_llama(folder / "first"), write_llama(folder / "other")
    torch.manual_seed(9)
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(first)
    prompts = ["the answer is 4 . So 5", "So the 7"]
    engine = load_engine(first, engine="auto", max_input_tokens=64)
    for weights in (first, other):
        engine.load_weights(weights)
        model = AutoModelForCausalLM.from_pretrained(weights).float()
        for prompt, (mine,) in zip(prompts, engine.generate(prompts, max_tokens=12), strict=True):
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            theirs = model.generate(ids, max_new_tokens=12, do_sample=False)[
                0, ids.shape[1] :
            ].tolist()
            assert mine.text == tokenizer.decode(theirs, skip_special_tokens=True).strip()
            assert (mine.tokens, mine.finish_reason) == (
                len(theirs),
                "stop" if theirs[-1] == tokenizer.eos_token_id else "length",
            )
    ask = {"n": 3, "temperature": 1.0, "max_tokens": 8}
    samples = engine.generate(prompts, seed=5, **ask)
    assert (
        engine.generate(prompts, seed=5, **ask)
        == samples
        != engine.generate(prompts, seed=6, **ask)
    )
    assert len({generated.text for generated in samples[0]}) > 1
    assert [len(texts) for texts in engine.generate(prompts, n=2, max_tokens=4)] == [2, 2]
    together = engine.generate(prompts, max_tokens=12)
    with ThreadPoolExecutor(2) as threads:  # two callers share the engine's steps
        apart = [threads.submit(engine.generate, [prompt], max_tokens=12) for prompt in prompts]
        assert [each.result()[0] for each in apart] == together
    check_listening(engine, prompts, samples, ask)


def check_listening(engine, prompts, samples, ask) -> None:
    """vLLM's texts are heard token by token, side by side, and an ended one leaves the engine."""
    ears = [Ear(), Ear(last=3)]
    texts = engine.generate(prompts, seed=5, listeners=ears, **ask)
    assert texts[0] == samples[0]
    for number, generated in enumerate(texts[0]):
        heard = ears[0].heard[number]
        assert len(heard) == generated.tokens - 1, "the last token is the text's end"
        for before, after in zip(heard, [*heard[1:], generated.text], strict=True):
            assert after.startswith(before)
    for number, (cut, uncut) in enumerate(zip(texts[1], samples[1], strict=True)):
        if uncut.tokens > 3:
            assert (cut.tokens, cut.finish_reason) == (3, "stop")
            assert uncut.text.startswith(cut.text) and len(ears[1].heard[number]) == 3
    assert any(uncut.tokens > 3 for uncut in samples[1])
    left = Ear(last=1)
    engine.generate(prompts[:1], n=2, max_tokens=4, listeners=[left])  # greedy: both are one
    assert left.heard.keys() == {0, 1}
    assert not engine.llm.llm_engine.has_unfinished_requests(), "an ended text kept its slot"
