"""Make the demo's two small models from scratch, side by side, one core each:

    python jobs/make_demo_models.py [--out FOLDER] [--seed N]
    python jobs/make_demo_models.py --check [--out FOLDER]

The first writes FOLDER/teacher and FOLDER/student, and without --out the shipped ones. The second
measures the models that lie there, and writes nothing.
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

from qcrd_ray.demo.make import PLANS, make
from qcrd_ray.demo.measure import measure, write_cards
from qcrd_ray.models.pretrained import demo_model


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--out",
        type=Path,
        default=demo_model("teacher").parent,
        help="where the folders teacher/ and student/ lie",
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
        make_both(chosen.out, seed=chosen.seed, steps=chosen.steps)
    figures = measure(chosen.out, questions=chosen.questions)
    for name, rows in figures.items():
        for row, share in rows.items():
            print(f"{name:8s} {row:55s} {share:.3f}")
    if not chosen.check:
        write_cards(chosen.out, figures, seed=chosen.seed, questions=chosen.questions)


def make_both(out: Path, *, seed: int, steps: int | None) -> None:
    """Make both models, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for name, plans in PLANS.items():
        plans = [dataclasses.replace(plan, steps=steps or plan.steps) for plan in plans]
        workers.append(
            context.Process(
                target=make, args=(name, out / name), kwargs={"plans": plans, "seed": seed}
            )
        )
        workers[-1].start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a model was not made: see above")


if __name__ == "__main__":
    main()
