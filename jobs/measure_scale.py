"""Measure generation, preparation and the first rounds of training at growing numbers of questions.

    python jobs/measure_scale.py --out /data/scale --questions 10000 100000 1000000

Each size is a run of its own: made-up word problems with five recorded samples each, so no teacher
takes part of the time. It prints a JSON line for each size, with rows per second, the peak memory
of each kind of process, and what a second call costs after 1 % of the rows was lost. At 10^6
questions it takes 6 GB of disk and, on two cores, about an hour. A finished size is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.runs.provenance import describe_code

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = 5
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
teacher: {{source: recording, path: {data}/teacher.jsonl}}
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


def write_data(folder: Path, questions: int) -> None:
    """The files of one size. A sample is right in three of four cases, and 500 characters long."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(questions)
    things = ("apples", "pencils", "stamps", "marbles", "coins", "shells", "cards", "beads")
    filler = "We go on step by step and check each number with care before we write it down. "
    with (
        (folder / "train.jsonl").open("w") as asked,
        (folder / "validation.jsonl").open("w") as held,
        (folder / "teacher.jsonl").open("w") as recorded,
    ):
        for i in range(questions + 64):
            a, b, c = draw.randrange(2, 99), draw.randrange(2, 99), draw.randrange(2, 9)
            thing = draw.choice(things)
            text = (
                f"Number {i}: a box holds {a} {thing}, another one {b}. There are {c} children who"
                f" each bring a box of the first kind and one of the second. How many {thing} are"
                " there?"
            )
            row = {"id": f"q{i}", "question": text, "answer": str(c * (a + b))}
            (asked if i < questions else held).write(json.dumps(row) + "\n")
            for _ in range(SAMPLES if i < questions else 0):
                total = (a + b) * c if draw.random() < 0.75 else a + b * c
                answer = (
                    f"{filler * 4}One child brings {a} + {b} = {a + b} {thing}. All {c} of them"
                    f" bring {total} {thing} together. So the answer is {total}."
                )
                recorded.write(json.dumps({"id": f"q{i}", "completion": answer}) + "\n")


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


def measure(questions: int, out: Path) -> dict[str, object]:
    """One size, in a folder of its own below ``out``, which is deleted at the end."""
    folder = out / str(questions)
    shutil.rmtree(folder, ignore_errors=True)
    write_data(folder, questions)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(run=folder / "run", data=folder))
    row: dict[str, object] = {"questions": questions, "samples": SAMPLES}
    for name, arguments in {
        "generate": ("generate", str(recipe)),
        "resume": ("generate", str(recipe)),
        "train": ("train", str(recipe)),
    }.items():
        if name == "resume":
            lose_rows(folder / "run")
        seconds, peaks = call(*arguments)
        row[name] = {
            "seconds": round(seconds, 1),
            "rows_per_s": round(questions / seconds, 1),
            "peak_mib": peaks,
        }
        print(f"{questions} {name}: {json.dumps(row[name])}", file=sys.stderr, flush=True)
    files = list((folder / "run" / "rationales").rglob("*.parquet"))
    row |= {"files": len(files), "gib": round(sum(f.stat().st_size for f in files) / 2**30, 2)}
    shutil.rmtree(folder)
    return row | {"cores": os.cpu_count(), "code": describe_code()}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--out", type=Path, required=True, help="where the runs are made")
    arguments.add_argument("--questions", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    chosen = arguments.parse_args()
    for questions in chosen.questions:
        result = chosen.out / f"{questions}.json"
        if not result.exists():
            write_text(result, json.dumps(measure(questions, chosen.out.absolute())) + "\n")
        print(result.read_text(), end="")


if __name__ == "__main__":
    main()
