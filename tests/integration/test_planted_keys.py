"""Keys of every kind are planted, a run uses them, and then everything that it left is searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from openai_server import reply, serving
from training_tiny import BASE

pytestmark = pytest.mark.integration

PLANTED = {
    name: f"planted-{name}-{number}7f3a9c51e2"
    for number, name in enumerate(
        (
            "teacher-variable",
            "teacher-file",
            "endpoint-variable",
            "endpoint-file",
            "hub",
            "store-id",
            "store-secret",
            "tracker",
            "argument",  # of a process beside the run: shows that the list of processes is read
        )
    )
}

# `qcrd run` with the keys in variables, then the two stages that take a key with keys in files.
# Meanwhile what Ray keeps of its jobs, actors, deployments and functions is collected in a file.
DRIVER = """
import sys, threading, time
from pathlib import Path

recipe, second, kept = map(Path, sys.argv[1:])
import ray
from ray.experimental import internal_kv
from qcrd_ray import cli, serving
from qcrd_ray.rationales import generate
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import no_progress
from qcrd_ray.tasks.splits import load_split

values = {}

def keep():
    while True:
        if ray.is_initialized():
            state = ray._private.state.state
            values["jobs"] = repr(state.job_table())
            values["actors"] = repr(state.actor_table(None))
            for space in (None, b"serve", b"fun", b"job", b"session", b"tracing"):
                for name in internal_kv._internal_kv_list(b"", namespace=space):
                    values[name] = internal_kv._internal_kv_get(name, namespace=space)
        time.sleep(0.5)

keeper = threading.Thread(target=keep, daemon=True)
keeper.start()
try:
    sys.argv = ["qcrd", "run", str(recipe)]
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
again = load_recipe(second)
generate(again, RunFolder.open(again))
student = RunFolder(Path(load_recipe(recipe).run)).student
served = again.serve.model_copy(update={"trust_task": True})
serving.ask_once(student, served, load_split(again, "test")[0][0], no_progress)
assert keeper.is_alive()
kept.write_text(repr(dict(values)))
"""


def told_in(content: bytes) -> set[str]:
    return {name for name, key in PLANTED.items() if key.encode() in content}


def told_by(file: Path) -> set[str]:
    """The keys that a file holds. Parquet is read: its pages are compressed."""
    if file.suffix == ".parquet":
        return told_in(json.dumps(pq.read_table(file).to_pylist(), default=str).encode())
    return told_in(file.read_bytes())


class Watch(threading.Thread):
    """Looks at the arguments of all processes of the machine again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.told: dict[str, str] = {}  # the key's name -> the process
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.3):
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or [])
                for name in told_in(line.encode()):
                    self.told[name] = line


@pytest.fixture
def place() -> Iterator[Path]:
    """A home, and a place for run folders and sessions with room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="q", dir="/tmp", ignore_cleanup_errors=True) as place:
        yield Path(place)


def write_recipe(run: Path, server, *, questions: int, teacher: dict, serve: dict) -> Path:
    tree = BASE | {
        "run": str(run),
        "data": {
            "train": {"generate": questions, "seed": 1},
            "validation": {"generate": 4},
            "test": {"generate": 4, "seed": 9},
        },
        "teacher": {"source": "openai", "base_url": server.url, "model": "a-model", **teacher},
        "sampling": {"k": 2},
        "objective": {"name": "dss"},
        "train": BASE["train"] | {"rounds": 1, "workers": 1},
        "evaluate": {"baselines": [], "teacher_on_test": False},
        "serve": serve,
        "ray": {"address": "local", "num_cpus": 8},
    }
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(tree))
    return path


def test_no_key_is_written_anywhere(place):
    """Not into the run folder with its report and student, Ray's session folder with its logs, what
    Ray keeps of jobs, actors and deployments, the standard streams, or a process's arguments. The
    teacher quotes the key in each answer.

    A process's environment is not searched: a key that is given by a variable stands there, for
    this user and root to read.
    """
    files = {name: place / name for name in ("teacher-file", "endpoint-file")}
    for name, file in files.items():
        file.write_text(f"{PLANTED[name]}\n")
    variables = {
        "OPENAI_API_KEY": "teacher-variable",
        "QCRD_API_KEY": "endpoint-variable",
        "HF_TOKEN": "hub",
        "AWS_ACCESS_KEY_ID": "store-id",
        "AWS_SECRET_ACCESS_KEY": "store-secret",
        "MLFLOW_TRACKING_TOKEN": "tracker",
    }
    environment = {name: value for name, value in os.environ.items() if "RAY_A" not in name}
    environment |= {"HOME": str(place), "RAY_TMPDIR": str(place)}
    environment |= {name: PLANTED[key] for name, key in variables.items()}
    keys = [PLANTED["teacher-variable"], PLANTED["teacher-file"]]

    def quoting(number, body):
        return reply(body, text=f"You sent {server.sent[-1]}. So the answer is 8.")

    with serving(quoting) as server:
        server.keys = keys
        first = write_recipe(place / "first", server, questions=8, teacher={}, serve={})
        second = write_recipe(
            place / "second",
            server,
            questions=3,
            teacher={"api_key_file": str(files["teacher-file"])},
            serve={"api_key_file": str(files["endpoint-file"])},
        )
        watch = Watch()
        watch.start()
        beside = [sys.executable, "-c", "input()", PLANTED["argument"]]
        command = [sys.executable, "-c", DRIVER, first, second, place / "kept"]
        with (
            (place / "output").open("w") as output,
            subprocess.Popen(beside, stdin=subprocess.PIPE) as control,
        ):
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=output, timeout=500
            )
            control.communicate(b"\n")
        watch.over.set()
        watch.join()
    assert done.returncode == 0, (place / "output").read_text()[-4000:]
    assert {*server.sent} == {f"Bearer {key}" for key in keys}, "both were used"
    for left in ("first/report.html", "first/student/README.md", "first/recipe.yaml", "kept"):
        assert (place / left).stat().st_size > 1000
    logs = [*place.glob("qcrd-*/ray/session_2*/logs/**/*.*")]
    assert {file.name.split("-")[0] for file in logs} >= {"raylet.out", "worker"}
    told = {
        str(file.relative_to(place)): told_by(file) for file in place.rglob("*") if readable(file)
    }
    assert {file: names for file, names in told.items() if names} == {
        name: {name} for name in files
    }
    assert watch.told.keys() == {"argument"}, watch.told


def readable(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()
