"""Benchmarks of the endpoint: what HTTP, Ray Serve and our own code take of the engine's speed."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from load_endpoint import load, question

from benchmarks.generation import COMMAND
from benchmarks.pairs import Benchmark, Measure, Size, Target, both, seconds_of
from benchmarks.training import Trained, job_of
from benchmarks.workload import demo, random_t5
from qcrd_ray.data.records import Question
from qcrd_ray.inference.answering import AnswerRequest, Sampling, ScoreRequest, Student
from qcrd_ray.inference.heads import Head
from qcrd_ray.models.student_folder import StudentFolder, export_student
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks.splits import store_split
from qcrd_ray.training.trainer import RESULT, summarise

BATCH = 32
TOKENS = 8  # of an answer: what a label takes
PORT = 18_231
EMPTY = Path(__file__).with_name("empty_endpoint.py")


def student(size: Size, name: str) -> Path:
    """An exported student with its discriminator, after one step: the demo's, or one of 20 million
    weights.
    """
    exported = size.work / f"served-{name}" / "student"
    if not exported.exists():
        shape = {"vocab_size": 256, "d_model": 384, "d_ff": 1_024, "num_layers": size.of(6, 1)}
        model = "demo" if name == "shipped" else str(random_t5(size.work / "t5-20m", **shape))
        recipe = demo(
            *(f"run={exported.parent}", f"student.model={model}", "train.rounds=1"),
            *("train.round.size=1", "train.workers=1", "train.validate.max_questions=1"),
            *("discriminator.pretrain_steps=1", "discriminator.steps_per_round=1"),
            *("negatives.student=false", "data.test.generate=20", "data.held_out=null"),
            "judge=null",
        )
        folder = RunFolder(exported.parent)
        job = job_of(recipe, "qcrd", size, exported.parent.name)
        Trained(job)
        write_text(job.folder / RESULT, json.dumps(summarise(job)))
        store_split(recipe, folder, "test")
        row: Any = {"name": "student", "head": "label", "split": "test", "correct": 0, "total": 20}
        row |= {"unanswered": 0, "accuracy": 0.0, "low": 0.0, "high": 0.2}
        export_student(recipe, folder, results={"splits": {}, "rows": [row], "notes": []})
    return exported


def served(folder: Path) -> AbstractContextManager[str]:
    """The address of a student that `qcrd serve` serves meanwhile."""
    limits = ("--set", f"max_output_tokens={TOKENS}", "--set", f"max_batch_size={BATCH}")
    return _listening([*COMMAND, "serve", str(folder), "--port", str(PORT), *limits], PORT)


def empty_endpoint() -> AbstractContextManager[str]:
    """The address of :mod:`benchmarks.empty_endpoint`."""
    return _listening([sys.executable, str(EMPTY), str(PORT + 1)], PORT + 1)


@contextmanager
def _listening(command: Sequence[str], port: int) -> Iterator[str]:
    """The address of an endpoint that ``command`` holds up meanwhile."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RAY_ADDRESS": "local"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, command
            try:
                with urllib.request.urlopen(f"{url}/healthz", timeout=5):
                    break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _engine(folder: Path) -> Student:
    return Student(StudentFolder.open(folder), batch_size=BATCH, max_tokens=TOKENS)


def _asked(first: int, count: int) -> list[AnswerRequest]:
    return [
        AnswerRequest(
            question=Question(id="", question=question(number)),
            head="label",
            sampling=Sampling(max_tokens=TOKENS),
        )
        for number in range(first, first + count)
    ]


@contextmanager
def throughput(size: Size) -> Iterator[Measure]:
    """Answers a second over HTTP, and in this process in full batches.

    Beside them those of an empty handler behind Ray Serve.
    """
    names, callers = ("shipped", "20M"), (32, 256)
    seconds = size.of(6, 1)
    batches = {name: size.of({"shipped": 30, "20M": 6}[name], 1) for name in names}
    folders = {name: student(size, name) for name in names}
    engines = {name: _engine(folder) for name, folder in folders.items()}

    def in_process(name: str) -> float:
        requests = [_asked(BATCH * i, BATCH) for i in range(batches[name])]
        spent = seconds_of(lambda: [engines[name].generate(batch) for batch in requests])
        return BATCH * len(requests) / spent

    def over_http(url: str, count: int) -> float:
        seen = asyncio.run(load(url, count, seconds, {}))
        assert not seen.failed, seen.failed
        return len(seen.answers) / seconds

    def measure(second_first: bool) -> dict[str, float]:
        with empty_endpoint() as url:
            figures = {
                f"answers/s, empty handler, {count} callers": over_http(url, count)
                for count in callers
            }
        for name, folder in folders.items():
            with served(folder) as url:
                alone = 0.0
                for count in callers:
                    http, alone = both(
                        second_first,
                        lambda count=count: over_http(url, count),
                        lambda name=name: in_process(name),
                    )
                    figures[f"ratio, {name}, {count} callers"] = http / alone
                    figures[f"answers/s, {name}, {count} callers"] = http
                figures[f"engine alone, answers/s, {name}"] = alone
        return figures

    yield measure


@contextmanager
def latency(size: Size) -> Iterator[Measure]:
    """What one caller waits for beyond the engine, for a label and for a rationale.

    Beside it what an empty handler behind Ray Serve takes.
    """
    asks = size.of(60, 2)
    folder = student(size, "shipped")
    engine = _engine(folder)
    bodies = {"label": {}, "rationale with quality": {"rationale": True, "quality": True}}

    def answer(url: str, number: int, more: dict[str, bool]) -> None:
        body = json.dumps({"question": question(number), **more}).encode()
        request = urllib.request.Request(
            f"{url}/v1/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()

    def alone(number: int, more: dict[str, bool]) -> None:
        asked = Question(id="", question=question(number))
        heads: list[Head] = ["label", "rationale"] if more else ["label"]
        written = engine.generate(
            [
                AnswerRequest(question=asked, head=head, sampling=Sampling(max_tokens=TOKENS))
                for head in heads
            ]
        )
        if more:
            engine.score([ScoreRequest(question=asked, text=written[1][0].text)])

    def median_ms(work: Any) -> float:
        return 1_000 * statistics.median(seconds_of(lambda n=n: work(n)) for n in range(asks))

    with served(folder) as url, empty_endpoint() as empty:

        def measure(second_first: bool) -> dict[str, float]:
            figures = {"ms, empty handler": median_ms(lambda n: answer(empty, n, {}))}
            for name, more in bodies.items():
                http, in_process = both(
                    second_first,
                    lambda more=more: median_ms(lambda n: answer(url, n, more)),
                    lambda more=more: median_ms(lambda n: alone(n, more)),
                )
                figures |= {f"added ms, {name}": http - in_process, f"ms, {name}": http}
            return figures

        yield measure


BENCHMARKS = {
    "serve": Benchmark(
        "answers a second over HTTP / by the engine in this process",
        throughput,
        {
            "ratio, 20M, 32 callers": Target(0.8, 0.9),
            "ratio, 20M, 256 callers": Target(0.8, 0.9),
            "ratio, shipped, 32 callers": Target(0.4, 0.6),
            "ratio, shipped, 256 callers": Target(0.4, 0.6),
        },
        pairs=3,
        warm_up=False,
    ),
    "serve_latency": Benchmark(
        "median milliseconds that HTTP, Ray Serve and our own code add, one caller",
        latency,
        {
            "added ms, label": Target(8, 4, at_most=True),
            "added ms, rationale with quality": Target(12, 6, at_most=True),
        },
    ),
}
