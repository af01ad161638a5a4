"""Make recorded SVAMP with slots: its splits, and a base that has learnt to read word problems.

    python jobs/make_svamp.py --data FOLDER --out runs/svamp_slots

FOLDER holds svamp/train.jsonl (id, question, answer), svamp/teacher.jsonl (id, completion),
mwp/train.jsonl (id, question, answer, equation_prefix) and gsm8k/train.jsonl (id, question, answer,
rationale). The recipes jobs/recipes/svamp_slots.yaml and compare_svamp_slots.yaml read what this
writes: the questions, and the base in the folder student/. No recorded question is pretrained on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as little work as this is slower on more

from qcrd_ray.data.records import Question
from qcrd_ray.demo.reading.examples import read_examples, slotted_task
from qcrd_ray.demo.reading.pretraining import PLANS, make_base
from qcrd_ray.demo.reading.stories import write_splits
from qcrd_ray.demo.recorded import accuracy
from qcrd_ray.errors import UserError
from qcrd_ray.inference.heads import Head


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True, help="the recorded questions")
    arguments.add_argument("--out", type=Path, required=True, help="where the files are written")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--steps", type=int, help="train the base for so many steps only (to try the job)"
    )
    arguments.add_argument(
        "--questions", type=int, help="ask the base so many questions of a split only"
    )
    chosen = arguments.parse_args()
    try:
        made = write_splits(chosen.data / "svamp", chosen.out, seed=chosen.seed)
        asked = {
            label: [
                Question(id=row["id"], question=row["question"], answer=row["answer"])
                for row in rows
            ]
            for label, rows in made.rows.items()
        }
        recorded = [question for questions in asked.values() for question in questions]
        examples, counts = read_examples(chosen.data, recorded=recorded, seed=chosen.seed)
    except UserError as error:
        sys.exit(str(error))
    sizes = ", ".join(f"{label} {len(questions)}" for label, questions in asked.items())
    print(f"{len(recorded)} questions on {made.stories} stories: {sizes}")
    print("pretraining: " + ", ".join(f"{source} {count}" for source, count in counts.items()))
    plans = [dataclasses.replace(plan, steps=chosen.steps or plan.steps) for plan in PLANS]
    student = chosen.out / "student"
    make_base(examples, student, plans=plans, seed=chosen.seed)
    for label in ("validation", "test"):
        some = asked[label][: chosen.questions]
        task = slotted_task()
        right = [accuracy(student, task, some, head=head) for head in get_args(Head)]
        print(f"{label}: label head right {right[0]:.3f}, rationale head {right[1]:.3f}")


if __name__ == "__main__":
    main()
