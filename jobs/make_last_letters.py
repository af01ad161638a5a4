"""Make the second task, last letters, from recorded completions: its questions, and a base.

    python jobs/make_last_letters.py --data FOLDER --out runs/last_letters [--student llama]

FOLDER holds train.jsonl (id, question, answer) and teacher.jsonl (id, completion). The recipes
jobs/recipes/last_letters.yaml and compare_last_letters.yaml read what this writes: the questions,
and the base in the folder student/.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as little work as this is slower on more

from qcrd_ray.demo.last_letters.pretraining import PLANS, make_base, make_questions
from qcrd_ray.demo.last_letters.questions import last_letters_task, write_splits
from qcrd_ray.demo.recorded import accuracy
from qcrd_ray.errors import UserError
from qcrd_ray.inference.heads import Head


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--data", type=Path, required=True, help="the recorded questions")
    arguments.add_argument("--out", type=Path, required=True, help="where the files are written")
    arguments.add_argument("--student", choices=tuple(PLANS), default="t5")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--held", type=int, default=70, help="questions kept out of training")
    arguments.add_argument(
        "--steps", type=int, help="train the base for so many steps only (to try the job)"
    )
    arguments.add_argument(
        "--questions", type=int, default=200, help="how many of each length the base is asked"
    )
    chosen = arguments.parse_args()
    try:
        made = write_splits(chosen.data, chosen.out, held=chosen.held, seed=chosen.seed)
    except UserError as error:
        sys.exit(str(error))
    print(
        f"{len(made.train)} questions to train on, {made.left_out} of more than four words left"
        f" out; kept out of training: {len(made.kept_out[0])} names for validation,"
        f" {len(made.kept_out[1])} for test"
    )
    plans = [dataclasses.replace(p, steps=chosen.steps or p.steps) for p in PLANS[chosen.student]]
    student = chosen.out / "student"
    make_base(chosen.student, student, plans=plans, avoid=made.names, seed=chosen.seed)
    for words in range(1, 5):
        unseen = make_questions([words], seed=chosen.seed + 1)
        asked = list(itertools.islice(unseen, chosen.questions))
        task = last_letters_task()
        right = [accuracy(student, task, asked, head=head) for head in get_args(Head)]
        print(f"{words} words: label head right {right[0]:.3f}, rationale head {right[1]:.3f}")


if __name__ == "__main__":
    main()
