"""Make the demo's two small models from scratch, side by side, one core each:

    python jobs/make_demo_models.py [--out FOLDER] [--seed N]
    python jobs/make_demo_models.py --student-kind llama --out FOLDER
    python jobs/make_demo_models.py --check [--out FOLDER]

The first writes FOLDER/teacher and FOLDER/student, and without --out the shipped ones. The second
writes FOLDER/student alone, a decoder-only base that is not shipped. The third measures the models
that lie there, and writes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# one core a model: two at a time would wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

from qcrd_ray.demo.make import PLANS, Kind, make
from qcrd_ray.demo.measure import measure, write_cards
from qcrd_ray.models.names import demo_model

SHIPPED = demo_model("teacher").parent
# the models that a run makes, by folder
MODELS: dict[str, dict[str, Kind]] = {
    "t5": {"teacher": "teacher", "student": "t5"},
    "llama": {"student": "llama"},
}


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--out",
        type=Path,
        default=SHIPPED,
        help="where the folders teacher/ and student/ lie",
    )
    arguments.add_argument(
        "--student-kind",
        choices=MODELS,
        default="t5",
        help="an encoder-decoder with its teacher, or a decoder-only student alone",
    )
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--steps", type=int, help="train for so many steps only (to try the job)"
    )
    arguments.add_argument(
        "--questions",
        type=int,
        default=1_000,
        help="how many questions of each kind the figures are measured on",
    )
    arguments.add_argument("--check", action="store_true", help="only measure")
    chosen = arguments.parse_args()
    if not chosen.check:
        models = MODELS[chosen.student_kind]
        if chosen.student_kind == "llama" and chosen.out.resolve() == SHIPPED.resolve():
            arguments.error("--student-kind llama: name a folder with --out; a T5 is shipped")
        make_all(models, chosen.out, seed=chosen.seed, steps=chosen.steps)
    figures = measure(chosen.out, questions=chosen.questions)
    if not figures:
        arguments.error(f"--out: {chosen.out} holds neither teacher/ nor student/")
    for name, rows in figures.items():
        for row, share in rows.items():
            print(f"{name:8s} {row:55s} {share:.3f}")
    if not chosen.check:
        write_cards(chosen.out, figures, seed=chosen.seed, questions=chosen.questions)


def make_all(models: dict[str, Kind], out: Path, *, seed: int, steps: int | None) -> None:
    """Make the models, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for name, kind in models.items():
        plans = [dataclasses.replace(plan, steps=steps or plan.steps) for plan in PLANS[kind]]
        workers.append(
            context.Process(
                target=make, args=(kind, out / name), kwargs={"plans": plans, "seed": seed}
            )
        )
        workers[-1].start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a model was not made: see above")


if __name__ == "__main__":
    main()
