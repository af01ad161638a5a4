"""Benchmarks of the commands: how soon they speak, and how long the demo takes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.generation import COMMAND
from benchmarks.pairs import Benchmark, Measure, Size, Target, seconds_of
from benchmarks.workload import DEMO
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.training.metrics import read_metrics


@contextmanager
def startup(size: Size) -> Iterator[Measure]:
    """`qcrd --help`, and the first line of `qcrd run`, which is interrupted then."""
    run = size.work / "startup"

    def speaks() -> float:
        command = [*COMMAND, "run", str(DEMO), f"--set=run={run}"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            seconds = seconds_of(process.stdout.readline)
            process.terminate()
            process.stdout.read()
        shutil.rmtree(run, ignore_errors=True)
        return seconds

    def measure(_: bool) -> dict[str, float]:
        helped = seconds_of(
            lambda: subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        )
        return {"--help, s": helped, "first line of run, s": speaks()}

    yield measure


@contextmanager
def demo(size: Size) -> Iterator[Measure]:
    """The demo from its first question to its report, and how long its training waits for the
    sampler of student negatives.
    """
    run = size.work / "demo"
    tiny = ["--set=train.rounds=1", "--set=data.train.generate=40"] if size.tiny else []

    def measure(_: bool) -> dict[str, float]:
        shutil.rmtree(run, ignore_errors=True)
        command = [*COMMAND, "run", str(DEMO), f"--set=run={run}", *tiny]
        seconds = seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))
        rounds = read_metrics(RunFolder(run).training("qcrd"))
        trained = sum(sum(each["seconds"].values()) for each in rounds)
        waited = sum(each["negatives"]["waited_s"] for each in rounds if "negatives" in each)
        return {"s": seconds, "negatives_wait, share of training": waited / trained}

    yield measure


BENCHMARKS = {
    "startup": Benchmark(
        "seconds until a command speaks",
        startup,
        {
            "--help, s": Target(0.4, 0.3, at_most=True),
            "first line of run, s": Target(5.0, 3.0, at_most=True),
        },
    ),
    "demo": Benchmark(
        "seconds of the whole demo",
        demo,
        {
            "s": Target(180, 135, at_most=True),
            "negatives_wait, share of training": Target(0.02, 0.01, at_most=True),
        },
        pairs=1,
        warm_up=False,
    ),
}
