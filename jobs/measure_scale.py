"""Measure generation, preparation and the first rounds of training at growing numbers of questions.

    python jobs/measure_scale.py --out /data/scale --questions 10000 100000 1000000
    python jobs/measure_scale.py --out /data/scale --questions 10000 100000 --teacher endpoint

Each size is a run of its own: made-up word problems with five samples each, out of a recording or
from an OpenAI-compatible endpoint that answers at once, so no teacher takes part of the time. It
prints a JSON line for each size, with rows per second, the peak memory
of each kind of process, and what a second call costs after 1 % of the rows was lost. At 10^6
questions it takes 6 GB of disk and, on two cores, about an hour. A finished size is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import box_problems
from benchmarks.box_problems import SAMPLES, question, samples

from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_code
from qcrd_ray.tasks.splits import write_split

ROOT = Path(__file__).resolve().parents[1]
EVERY_S = 0.2
# How Ray names the processes of each kind; the driver is the command itself.
KINDS = {"ray::MapWorker": "asking", "ray::call": "files", "ray::RayTrainWorker": "training"}

RECIPE = """
name: scale
run: {run}
task: {{kind: arithmetic}}
data:
  train: {{path: {data}/train.jsonl}}
  validation: {{path: {data}/validation.jsonl}}
  test: {{path: {data}/validation.jsonl}}
teacher: {teacher}
generation: {{actors: 2}}
student:
  scratch: {{d_model: 64, d_ff: 128, layers: 1, heads: 2, vocabulary: 1000}}
  max_input_tokens: 128
  max_target_tokens: 256
negatives: {{student: false}}
discriminator: {{hidden: 32, pretrain_steps: 5, steps_per_round: 2, batch_size: 8, max_tokens: 256}}
train:
  rounds: 2
  round: {{unit: steps, size: 20}}
  batch_size: 32
  workers: 1
  validate: {{max_questions: 32}}
ray: {{address: local, num_cpus: 4}}
"""


def write_data(folder: Path, questions: int, *, recorded: bool) -> None:
    """The files of one size; ``recorded``: the teacher's samples too."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(questions)
    with (
        (folder / "train.jsonl").open("w") as asked,
        (folder / "validation.jsonl").open("w") as held,
        (folder / "teacher.jsonl").open("w") as recording,
    ):
        for i in range(questions + 64):
            text, answer = question(i, draw)
            row = {"id": f"q{i}", "question": text, "answer": answer}
            (asked if i < questions else held).write(json.dumps(row) + "\n")
            for said in samples(text) if recorded and i < questions else ():
                recording.write(json.dumps({"id": f"q{i}", "completion": said}) + "\n")


@contextmanager
def teacher_of(kind: str, folder: Path) -> Iterator[str]:
    """The `teacher` of the recipe: the recording in ``folder``, or an endpoint while it runs."""
    if kind == "recording":
        yield f"{{source: recording, path: {folder}/teacher.jsonl}}"
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, box_problems.__file__, str(port)])
    try:
        yield f"{{source: openai, base_url: http://127.0.0.1:{port}/v1, model: boxes}}"
    finally:
        process.terminate()
        process.wait()


class Peaks:
    """The largest memory of each kind of process below this one, in MiB, while a block runs.

    It is the memory that the process has for itself (RSS without shared pages): what is mapped from
    files or from Ray's object store is the system's to take back.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, float] = defaultdict(float)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(EVERY_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    title, memory = " ".join(process.cmdline()), process.memory_info()
                except psutil.Error:  # it has ended meanwhile
                    continue
                kind = next((kind for start, kind in KINDS.items() if title.startswith(start)), "")
                kind = kind or ("driver" if "qcrd_ray.cli" in title else "")
                if kind:
                    private = (memory.rss - memory.shared) / 2**20
                    self.peaks[kind] = max(self.peaks[kind], private)


def call(*arguments: str) -> tuple[float, dict[str, int]]:
    """Run `qcrd` in a process of its own; return its seconds and the peaks of memory."""
    command = [sys.executable, "-c", "from qcrd_ray.cli import main; main()", *arguments]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_worker_niceness": "0",
        "RAY_ADDRESS": "local",
    }
    began = time.monotonic()
    with Peaks() as peaks:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.monotonic() - began, {kind: round(peak) for kind, peak in peaks.peaks.items()}


def lose_rows(run: Path) -> None:
    """Take 1 % of the finished rows away, the first of each shard."""
    for file in sorted((run / "rationales" / "train" / "rows").glob("*.parquet")):
        table = pq.read_table(file)
        write_table(table.slice(max(1, table.num_rows // 100)), file)


def measure(questions: int, out: Path, teacher: str) -> dict[str, object]:
    """One size, in a folder of its own below ``out``, which is deleted at the end."""
    folder = out / str(questions)
    shutil.rmtree(folder, ignore_errors=True)
    write_data(folder, questions, recorded=teacher == "recording")
    with teacher_of(teacher, folder) as source:
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(run=folder / "run", data=folder, teacher=source))
        row = {"questions": questions, "teacher": teacher, "samples": SAMPLES}
        row |= stages(recipe, folder / "run", questions)
    files = list((folder / "run" / "rationales").rglob("*.parquet"))
    row |= {"files": len(files), "gib": round(sum(f.stat().st_size for f in files) / 2**30, 2)}
    shutil.rmtree(folder)
    return row | {"cores": os.cpu_count(), "code": describe_code()}


def stages(recipe: Path, run: Path, questions: int) -> dict[str, object]:
    """Seconds and memory of each call on one size."""
    began = time.monotonic()
    write_split(load_recipe(recipe), RunFolder(run.with_name("read")), "train")  # the driver alone
    seconds = time.monotonic() - began
    row: dict[str, object] = {
        "read": {"seconds": round(seconds, 1), "rows_per_s": round(questions / seconds)}
    }
    for name, arguments in {
        "generate": ("generate", str(recipe)),
        "resume": ("generate", str(recipe)),
        "train": ("train", str(recipe)),
    }.items():
        if name == "resume":
            lose_rows(run)
        seconds, peaks = call(*arguments)
        row[name] = {
            "seconds": round(seconds, 1),
            "rows_per_s": round(questions / seconds, 1),
            "peak_mib": peaks,
        }
        print(f"{questions} {name}: {json.dumps(row[name])}", file=sys.stderr, flush=True)
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--out", type=Path, required=True, help="where the runs are made")
    arguments.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--teacher", choices=("recording", "endpoint"), default="recording")
    chosen = arguments.parse_args()
    for questions in chosen.questions:
        result = chosen.out / f"{chosen.teacher}-{questions}.json"
        if not result.exists():
            row = measure(questions, chosen.out.absolute(), chosen.teacher)
            write_text(result, json.dumps(row) + "\n")
        print(result.read_text(), end="")


if __name__ == "__main__":
    main()
