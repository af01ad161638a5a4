"""Benchmarks of training: the public code's step, our own parts, and the obvious way to do it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM

from benchmarks.naive_qcrd import naive_seconds, our_seconds, padded
from benchmarks.pairs import Benchmark, Measure, Size, Target, both
from benchmarks.workload import demo, random_t5, rationales
from qcrd_ray.method.examples import Example, Tokens
from qcrd_ray.method.losses import IGNORED
from qcrd_ray.method.tokenization import pad_id
from qcrd_ray.models.pretrained import pick_device, read_tokenizer
from qcrd_ray.recipe import ObjectiveName, Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.training.job import TrainingJob
from qcrd_ray.training.metrics import Timer, read_metrics
from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds
from qcrd_ray.training.trainer import prepare_job
from qcrd_ray.training.worker import Worker

QUESTIONS = 800
SAME_LOSS = 1e-5
ALPHA = 0.5  # of Distilling Step-by-Step: how much the label counts


def job_of(recipe: Recipe, objective: ObjectiveName, size: Size, name: str) -> TrainingJob:
    """A training of ``objective`` on :func:`rationales`, in a folder of its own."""
    root = size.work / name
    shutil.rmtree(root, ignore_errors=True)
    folder = RunFolder(root)
    return prepare_job(
        recipe, folder, objective, rationales=rationales(recipe, size.of(QUESTIONS, 32))
    )


class Trained:
    """Seconds of one training by what they were spent on; "steps" are the student's."""

    def __init__(self, job: TrainingJob):
        shutil.rmtree(job.folder, ignore_errors=True)
        worker = Worker(job, ProcessGroup.single(pick_device("cpu")))
        began = time.monotonic()
        worker.run()
        total = time.monotonic() - began
        rows = read_metrics(job.folder)
        self.steps = worker.steps_done
        self.seconds: dict[str, float] = {}
        for row in rows:
            for part, seconds in row["seconds"].items():
                self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        # what no round has timed
        self.seconds["pretraining"] = total - sum(self.seconds.values())


def public_step_seconds(start: Path, examples: list[Example], *, batch_size: int) -> float:
    """Seconds of a step as google-research/distilling-step-by-step makes it (TaskPrefixTrainer).

    The label and the rationale go through the model one after the other, each with its own prompt
    and padding. The rest is what `transformers.Trainer` does, without its own bookkeeping.
    """
    model = AutoModelForSeq2SeqLM.from_pretrained(start, trust_remote_code=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    pad = pad_id(read_tokenizer(start))

    def loss(rows: list[Tokens], targets: list[Tokens]) -> torch.Tensor:
        inputs = padded(rows, pad)
        mask = (inputs != pad).long()
        return model(inputs, attention_mask=mask, labels=padded(targets, IGNORED)).loss

    began = time.monotonic()
    for first in range(0, len(examples), batch_size):
        batch = examples[first : first + batch_size]
        label = loss([m.predict for m in batch], [m.label or () for m in batch])
        rationale = loss([m.explain for m in batch], [m.first or () for m in batch])
        (ALPHA * label + (1.0 - ALPHA) * rationale).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.monotonic() - began) / (len(examples) / batch_size)


def t5_small(size: Size) -> Path:
    """A student of T5-small's shape."""
    return random_t5(size.work / "t5-small", vocab_size=32_128, num_layers=size.of(6, 1))


@contextmanager
def dss_step(size: Size) -> Iterator[Measure]:
    """The demo's student, and one of T5-small's shape."""
    _one_thread()
    shapes = {
        "demo": ("demo", 24, size.of(10, 1)),
        "T5-small": (str(t5_small(size)), 8, size.of(2, 1)),
    }
    prepared = {}
    for name, (model, batch, steps) in shapes.items():
        recipe = demo(
            *("train.rounds=1", f"train.round.size={steps}", f"train.batch_size={batch}"),
            *(f"student.model={model}", "train.validate.max_questions=1", "train.workers=1"),
        )
        job = job_of(recipe, "dss", size, f"dss-{name}")
        worker = Worker(job, ProcessGroup.single(pick_device("cpu")))
        rounds, _ = worker.questions.of_round(0, "", Timer(), before=None)
        examples = [
            rounds[index].example for step in range(steps) for index in worker.rounds.batch(step)
        ]
        prepared[name] = job, examples, steps

    def of_shape(name: str, second_first: bool) -> dict[str, float]:
        job, examples, steps = prepared[name]
        public, ours = both(
            second_first,
            lambda: public_step_seconds(job.start, examples, batch_size=len(examples) // steps),
            lambda: Trained(job).seconds["student"] / steps,
        )
        return {
            f"ratio, {name}": public / ours,
            f"public, s a step, {name}": public,
            f"ours, s a step, {name}": ours,
        }

    def measure(second_first: bool) -> dict[str, float]:
        return {
            figure: value
            for name in prepared
            for figure, value in of_shape(name, second_first).items()
        }

    yield measure


@contextmanager
def qcrd_step(size: Size) -> Iterator[Measure]:
    """An eighth of the demo's training, with all that comes before a student's step."""
    _one_thread()
    rounds, steps = size.of(2, 1), size.of(18, 2)
    overrides = [
        *(f"train.rounds={rounds}", f"train.round.size={steps}", "train.workers=1"),
        *("train.validate.max_questions=1", f"discriminator.pretrain_steps={size.of(10, 1)}"),
        f"discriminator.steps_per_round={size.of(2, 1)}",
    ]
    jobs = {
        "dss": job_of(demo(*overrides), "dss", size, "step-dss"),
        "qcrd": job_of(demo(*overrides), "qcrd", size, "step-qcrd"),
        "no judge": job_of(
            demo(*overrides, "objective.weights=none"), "qcrd", size, "step-no-judge"
        ),
    }

    def measure(second_first: bool) -> dict[str, float]:
        names = list(jobs)[:: -1 if second_first else 1]
        trained = {name: Trained(jobs[name]) for name in names}
        dss = trained["dss"].seconds["student"]
        parts = trained["qcrd"].seconds
        judge = sum(parts.get(name, 0.0) for name in ("pretraining", "discriminator", "scoring"))
        return {
            "ratio": (parts["student"] + judge) / dss,
            "ratio, student's step alone": parts["student"] / dss,
            "ratio, without a discriminator": trained["no judge"].seconds["student"] / dss,
            "discriminator's share": judge / (parts["student"] + judge),
            "pretraining's share": parts["pretraining"] / (parts["student"] + judge),
        }

    yield measure


@contextmanager
def qcrd_naive(size: Size) -> Iterator[Measure]:
    """Batches of the demo's first round, with its weights."""
    _one_thread()
    steps = size.of(6, 1)
    job = job_of(
        demo(
            *("train.rounds=1", f"train.round.size={steps}", "train.workers=1"),
            *("student.dropout=0.0", "train.validate.max_questions=1"),
            *("discriminator.pretrain_steps=0", "discriminator.steps_per_round=1"),
        ),
        "qcrd",
        size,
        "naive",
    )
    Trained(job)  # leaves the round's samples of the student
    worker = Worker(job, ProcessGroup.single(pick_device("cpu")))
    questions, _ = worker.questions.of_round(0, "", Timer(), before=None)
    batches = [
        [questions[index].example for index in worker.rounds.batch(step)] for step in range(steps)
    ]
    pad = pad_id(read_tokenizer(job.start))

    def measure(second_first: bool) -> dict[str, float]:
        first_losses: list[float] = []

        def seconds(side: Callable[..., tuple[float, float]]) -> float:
            taken, first = side(job.start, job.objective, batches, pad=pad)
            first_losses.append(first)
            return taken

        naive, ours = both(
            second_first, lambda: seconds(naive_seconds), lambda: seconds(our_seconds)
        )
        assert abs(first_losses[0] - first_losses[1]) < SAME_LOSS, "not the same computation"
        return {
            "ratio": naive / ours,
            "naive, s a step": naive,
            "ours, s a step": ours,
        }

    yield measure


def _one_thread() -> None:
    torch.set_num_threads(1)
    disable_operator_builds()


BENCHMARKS = {
    "dss_step": Benchmark(
        "a step of the public Distilling Step-by-Step code / ours, on the same examples",
        dss_step,
        {"ratio, demo": Target(1.2, 1.5), "ratio, T5-small": Target(1.4, 2.0)},
    ),
    "qcrd_step": Benchmark(
        "QCRD's step with its discriminator (pretraining, steps, scores) / our DSS step",
        qcrd_step,
        {
            "ratio": Target(2.4, 2.0, at_most=True),
            "discriminator's share": Target(0.12, 0.08, at_most=True),
        },
    ),
    "qcrd_naive": Benchmark(
        "QCRD's step with every pair by itself, and gradient through all / our step",
        qcrd_naive,
        {"ratio": Target(2.2, 3.0)},
    ),
}
