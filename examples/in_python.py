"""A whole run from Python: made-up questions, a recording as teacher, a small random student.

python examples/in_python.py <an empty folder>

It shows the calls, in a minute or two on a laptop's CPU; so small a student learns nothing in so
short a training. Each block would be a cell of a notebook.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import qcrd_ray


def write_data(folder: Path) -> None:
    """Questions of a shop, and three texts a question of which one in four is wrong."""
    draw = random.Random(0)
    with (folder / "recording.jsonl").open("w") as recording:
        for split, count in (("train", 48), ("validation", 8), ("test", 8)):
            rows = []
            for number in range(count):
                a, b = draw.randint(1, 40), draw.randint(1, 40)
                id = f"{split}-{number}"
                question = f"A shop has {a} tins and orders {b} more. How many?"
                rows.append({"id": id, "question": question, "answer": str(a + b)})
                for _ in range(3):
                    said = a + b + (draw.random() < 0.25)
                    text = f"It has {a}, so {a} + {b} = {said}. So the answer is {said}."
                    recording.write(json.dumps({"id": id, "completion": text}) + "\n")
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(folder: Path) -> list[dict[str, Any]]:
    """Run everything in ``folder``, and return the student's answers to two new questions."""
    write_data(folder)

    recipe = qcrd_ray.load_recipe(
        {
            "name": "shop",
            "run": str(folder / "run"),
            "task": {"kind": "arithmetic"},
            "data": {
                split: {"path": str(folder / f"{split}.jsonl")}
                for split in ("train", "validation", "test")
            },
            "teacher": {"source": "recording", "path": str(folder / "recording.jsonl")},
            "sampling": {"k": 3},
            "student": {
                "scratch": {"d_model": 32, "d_ff": 64, "layers": 1, "heads": 2},
                "max_input_tokens": 48,
                "max_target_tokens": 40,
            },
            "discriminator": {"hidden": 16, "pretrain_steps": 5, "steps_per_round": 2},
            "evaluate": {"baselines": []},
        },
        train={"rounds": 2, "batch_size": 16, "learning_rate": 2e-3},
    )

    result = qcrd_ray.run(recipe)
    for row in result.results["rows"]:
        print(f"{row['name']}, {row['head']}: {row['accuracy']:.0%} of {row['split']}")

    student = qcrd_ray.load_student(result.folder.student)
    answers = student.predict(
        [
            "A shop has 3 tins and orders 4 more. How many?",
            {"id": "mine", "question": "A shop has 2 tins and orders 6 more. How many?"},
        ],
        rationale=True,
    )
    for answer in answers:
        print(f"{answer['label']}: {answer['rationale']}")
    return answers


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
