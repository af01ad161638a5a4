"""Benchmarks of the rationales stage: against vLLM alone, and its own part alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.pairs import Benchmark, Measure, Size, Target, both, seconds_of
from benchmarks.workload import DEMO, demo, random_llama, samples_of
from qcrd_ray.cluster.resources import connect
from qcrd_ray.data.records import Completion
from qcrd_ray.models.names import resolve_teacher
from qcrd_ray.rationales.asking import RationaleGenerator
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.rationales.stage import generate
from qcrd_ray.recipe import FewShotExample, Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.word_problems import generate as make_questions
from qcrd_ray.teacher import TeacherAnswer, TeacherRequest, teacher_for

OFFLINE = Path(__file__).with_name("offline_vllm.py")
COMMAND = [sys.executable, "-c", "from qcrd_ray.cli import main; main()"]


class SaidTeacher:
    """Gives each question what :func:`samples_of` made of it, at once."""

    def __init__(self, samples: dict[str, list[str]]):
        self._samples = samples

    def prompt(self, task: Any, question: Any) -> str:
        return ""

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        return [
            TeacherAnswer(tuple(Completion(text=text) for text in self._samples[each.question.id]))
            for each in requests
        ]


@contextmanager
def vote(size: Size) -> Iterator[Measure]:
    """Rows of five samples of some 300 characters, asked of nobody, parsed and voted on."""
    questions = make_questions(size.of(3_000, 20), seed=1)
    samples = {question.id: samples_of(question, lead=True) for question in questions}
    rows = [
        {
            "id": question.id,
            "question_id": question.id,
            "question": question.question,
            "choices": [],
            "gold": question.answer,
        }
        for question in questions
    ]
    requests = pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)
    recipe = demo()

    def measure(_: bool) -> dict[str, float]:
        generator = RationaleGenerator(recipe, SaidTeacher(samples))  # type: ignore[arg-type]
        seconds = seconds_of(lambda: asyncio.run(generator(requests)))
        return {"rows_per_s": len(questions) / seconds}

    yield measure


class Offline:
    """The process of :mod:`benchmarks.offline_vllm` for a recipe's teacher.

    ``engine_kwargs`` are put over the recipe's.
    """

    def __init__(self, recipe: Recipe, **engine_kwargs: Any):
        teacher = recipe.teacher
        assert teacher.source == "serve"
        sampling = {
            "n": recipe.sampling.k,
            "temperature": recipe.sampling.temperature,
            "max_tokens": recipe.sampling.max_tokens,
        }
        model = resolve_teacher(teacher.model)
        engine = json.dumps(teacher.engine_kwargs | engine_kwargs)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [sys.executable, str(OFFLINE), model, engine, json.dumps(sampling)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def wait(self) -> Any:
        """Its next line: what it says once it is ready, and then seconds."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line[0] in '0123456789"':  # vLLM writes to standard output too
                return json.loads(line)
        self._said.seek(0)
        raise RuntimeError(f"vLLM ended before it had answered: {self._said.read()[-2_000:]}")

    def generate(self, prompts: Sequence[str]) -> float:
        """How many seconds it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(prompts)) + "\n")
        self._process.stdin.flush()
        return self.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._said.close()


def _prompts(recipe: Recipe, count: int, *, seed: int) -> list[str]:
    task = build_task(recipe.task)
    return [task.teacher_prompt(question) for question in make_questions(count, seed=seed)]


@contextmanager
def steady(size: Size) -> Iterator[Measure]:
    """Both engines are up before the first pair; each pair has questions of its own."""
    questions = size.of(1_500, 8)
    overrides = [f"data.train.generate={questions}"]
    base = demo(*overrides)
    connect(base.ray)
    offline = Offline(base)
    try:
        with teacher_for(base) as teacher:
            teacher.check([])
            teacher.start()
            offline.wait()
            pair = 0

            def measure(second_first: bool) -> dict[str, float]:
                nonlocal pair
                pair += 1
                run = size.work / f"generate-{pair}"
                shutil.rmtree(run, ignore_errors=True)
                recipe = demo(*overrides, f"run={run}", f"data.train.seed={8 * pair}")
                folder = RunFolder(run)  # not opened: its lock would outlive the folder
                ours, alone = both(
                    second_first,
                    lambda: seconds_of(lambda: generate(recipe, folder, teacher=teacher)),
                    lambda: offline.generate(_prompts(recipe, questions, seed=8 * pair)),
                )
                shutil.rmtree(run)
                return {
                    "ratio": alone / ours,
                    "ours, questions/s": questions / ours,
                    "vLLM alone, questions/s": questions / alone,
                }

            yield measure
    finally:
        offline.close()


@contextmanager
def cold(size: Size) -> Iterator[Measure]:
    """Each side is a command that starts from nothing."""
    questions = size.of(400, 8)
    run = size.work / "cold"
    rows = run / "rationales" / "train" / "rows"
    recipe = demo()
    overrides = [f"run={run}", f"data.train.generate={questions}"]
    command = [*COMMAND, "generate", str(DEMO), *(f"--set={each}" for each in overrides)]

    def ours() -> tuple[float, float]:
        """Seconds until all is answered, and until the first row is on the disk."""
        shutil.rmtree(run, ignore_errors=True)
        began, first = time.monotonic(), 0.0
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                if not first and any(file.stat().st_size for file in rows.glob("*/*.jsonl")):
                    first = time.monotonic() - began
                time.sleep(0.05)
        assert process.returncode == 0, command
        return time.monotonic() - began, first

    def alone() -> tuple[float, float]:
        """Seconds until all is answered, and until vLLM has started."""
        began = time.monotonic()
        offline = Offline(recipe)
        offline.wait()
        ready = time.monotonic() - began
        offline.generate(_prompts(recipe, questions, seed=1))
        seconds = time.monotonic() - began
        offline.close()
        return seconds, ready

    def measure(second_first: bool) -> dict[str, float]:
        if second_first:
            (theirs, ready), (total, first) = alone(), ours()
        else:
            (total, first), (theirs, ready) = ours(), alone()
        return {
            "ratio": theirs / total,
            "first answer / vLLM's start": first / ready,
            "first answer, s": first,
            "vLLM's start, s": ready,
            "all, s": total,
        }

    yield measure


@contextmanager
def prefix_caching(size: Size) -> Iterator[Measure]:
    """vLLM with and without its cache of prefixes; a model of some four million random weights."""
    model = random_llama(size.work / "llama", max_position_embeddings=2_048)
    worked = [
        FewShotExample(
            question=each.question, rationale=each.rationale or "", answer=each.answer or ""
        )
        for each in make_questions(8, seed=9)
    ]
    base = demo(f"teacher.model={model}", "teacher.engine_kwargs.max_model_len=2048")
    recipes = {
        "no examples": base,
        "8 examples": base.model_copy(
            update={"task": base.task.model_copy(update={"examples": worked})}
        ),
    }
    engines = {kept: Offline(base, enable_prefix_caching=kept) for kept in (True, False)}
    questions, pair = size.of(100, 4), 0
    try:
        for engine in engines.values():
            engine.wait()

        def measure(second_first: bool) -> dict[str, float]:
            nonlocal pair
            pair += 1
            figures: dict[str, float] = {}
            for name, recipe in recipes.items():
                prompts = _prompts(recipe, questions, seed=8 * pair)
                cached, anew = both(
                    second_first,
                    lambda prompts=prompts: engines[True].generate(prompts),
                    lambda prompts=prompts: engines[False].generate(prompts),
                )
                figures |= {
                    f"ratio, {name}": anew / cached,
                    f"questions/s with the cache, {name}": questions / cached,
                    f"characters a prompt, {name}": sum(map(len, prompts)) / questions,
                }
            return figures

        yield measure
    finally:
        for engine in engines.values():
            engine.close()


BENCHMARKS = {
    "vote": Benchmark(
        "parse and vote on one core, rows of 5 samples",
        vote,
        {"rows_per_s": Target(5_000, 10_000)},
    ),
    "generate": Benchmark(
        "offline vLLM's seconds / ours, the same model, prompts and sampling; both are up",
        steady,
        {"ratio": Target(0.85, 0.95)},
        pairs=3,  # of two minutes each
    ),
    "first_answer": Benchmark(
        "the same with both starts; seconds to our first answer / those of vLLM's start",
        cold,
        {
            "ratio": Target(0.75, 0.85),
            "first answer / vLLM's start": Target(2.5, 1.5, at_most=True),
        },
        pairs=3,
        warm_up=False,
    ),
    "prefix_caching": Benchmark(
        "vLLM's seconds without its cache of prefixes / with it",
        prefix_caching,
        pairs=5,
    ),
}
