"""Benchmarks of the commands: how soon they speak, and how long the demo takes."""

from __future__ import annotations

import json
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
    """The demo from its first question to its report: what `qcrd plan` said of each stage, and how
    long its training waits for the sampler of student negatives.
    """
    run = size.work / "demo"
    planned = run.with_name("demo.plan")
    tiny = ["--set=train.rounds=1", "--set=data.train.generate=40"] if size.tiny else []
    recipe = [str(DEMO), f"--set=run={run}", *tiny]

    def plan() -> dict[str, float]:
        """Seconds of each stage as `qcrd plan` tells them."""
        command = [*COMMAND, "plan", *recipe, "--json"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {stage["name"]: stage["seconds"] for stage in json.loads(said)["whole"]["stages"]}

    def measure(_: bool) -> dict[str, float]:
        for folder in (run, planned):
            shutil.rmtree(folder, ignore_errors=True)
        expected = plan()
        command = [*COMMAND, "run", *recipe]
        seconds = seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))
        folder = RunFolder(run)
        took = json.loads(folder.seconds.read_text())
        assert expected.keys() <= took.keys(), "the plan has a stage that the run has not"
        rounds = read_metrics(folder.training("qcrd"))
        trained = sum(sum(each["seconds"].values()) for each in rounds)
        waited = sum(each["negatives"]["waited_s"] for each in rounds if "negatives" in each)
        off = {name: expected[name] / took[name] - 1.0 for name in expected}
        planned_all = sum(expected.values()) / sum(took[name] for name in expected) - 1.0
        return {
            "s": seconds,
            "negatives_wait, share of training": waited / trained,
            **{f"s, {name}": value for name, value in took.items()},
            **{f"plan off by, {name}": value for name, value in off.items()},
            "plan off by, all": planned_all,
            "plan's largest error": max(abs(value) for value in off.values()),
        }

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
        "seconds of the whole demo, by stage, beside what `qcrd plan` said",
        demo,
        {
            "s": Target(180, 135, at_most=True),
            "negatives_wait, share of training": Target(0.02, 0.01, at_most=True),
            "plan's largest error": Target(0.2, 0.1, at_most=True),
        },
        pairs=1,
        warm_up=False,
    ),
}
