"""The paper's recipes at the size of a test: rows in the shape in which each set lies on the hub, a
recording, and tiny models stand in
for what is downloaded and paid for, by nothing but overrides on the command line.
"""

from __future__ import annotations

import json
from pathlib import Path

import datasets

from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks.splits import load_split

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "jobs" / "recipes" / "paper"
PATHS = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "base.yaml")
SPLITS = ("train", "validation", "test")

_NLI = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
_NAMES = ("Ann", "Bob", "Cem", "Dee", "Eli", "Fay", "Gus", "Hal")


def hub_set(name: str, folder: Path) -> Path:
    """The rows of `svamp`, `cqa`, `anli1` or `esnli`, 24 of each split, in a folder that `datasets`
    loads as it loads the hub's.
    """
    {"svamp": _svamp, "cqa": _cqa, "anli1": _anli, "esnli": _esnli}[name](folder)
    return folder


def overrides(path: Path, folder: Path, student: Path) -> list[str]:
    """What makes the recipe at ``path`` tiny; data and recording are written to ``folder``."""
    data = hub_set(path.name.split("_")[0], folder / "hub")
    local = [
        *(f"data.{split}.dataset={data}" for split in SPLITS),
        *(f"data.{split}.revision=null" for split in SPLITS),
        *("data.train.rows=[0, 16]", "data.validation.rows=[16, 24]", "data.test.rows=[8, 24]"),
        f"run={folder / 'run'}",
        f"student.model={student}",
        f"discriminator.model={student}",
        "student.max_target_tokens=16",
        *(
            "discriminator.pretrain_steps=2",
            "discriminator.steps_per_round=1",
            "discriminator.batch_size=4",
        ),
        *(
            "train.rounds=2",
            "train.round.size=2",
            "train.batch_size=4",
            "train.micro_batch_size=4",
            "train.precision=fp32",
        ),
        *(
            "train.workers=1",
            "train.worker={cpus: 0.5}",
            "train.validate={every_rounds: 2, choose_by: label}",
        ),
        "negatives.sampler={cpus: 0.5}",
        *("evaluate.workers=1", "evaluate.worker={}"),
        *(
            "generation.actors=1",
            "generation.actor={}",
            "serve.replica={}",
            "ray.address=local",
        ),
    ]
    recording = folder / "recording.jsonl"
    _record(load_recipe(path, local), recording)
    return [*local, f"teacher={{source: recording, path: {recording}}}"]


def _record(recipe, file: Path) -> None:
    """Five completions a question, of which one gives another choice's or another question's
    answer.
    """
    questions = [
        question for split in ("train", "test") for question in load_split(recipe, split)[0]
    ]
    with file.open("w") as recorded:
        for question in questions:
            wrong = next(
                a for a in question.choices or [q.answer for q in questions] if a != question.answer
            )
            right, wrong = (
                f"It says so. So the answer is {answer}." for answer in (question.answer, wrong)
            )
            for text in [right, right, f"We see. {right}", f"Clearly. {right}", wrong]:
                recorded.write(json.dumps({"id": question.id, "completion": text}) + "\n")


def _svamp(folder: Path) -> None:
    rows = [
        {
            "ID": f"chal-{n}",
            "Body": f"{_NAMES[n % 8]} had {n + 3} pens and lost {n % 3 + 1} of them",
            "Question": "How many pens are left?",
            "Equation": f"( {n + 3}.0 - {n % 3 + 1}.0 )",
            "Answer": f"{n + 2 - n % 3}.0",
            "Type": "Subtraction",
        }
        for n in range(24)
    ]
    splits = {
        "train": datasets.Dataset.from_list(rows[:16]),
        "test": datasets.Dataset.from_list(rows[16:]),
    }
    datasets.DatasetDict(splits).save_to_disk(folder)


def _cqa(folder: Path) -> None:
    rows = [
        {
            "id": f"c{n}",
            "question": f"Where would {_NAMES[n % 8]} look for item {n}?",
            "question_concept": "item",
            "choices": {
                "label": list("ABCDE"),
                "text": [f"{place} {n}" for place in ("shop", "zoo", "attic", "lake", "bank")],
            },
            "answerKey": "ABCDE"[n % 5],
        }
        for n in range(24)
    ]
    named = datasets.Dataset.from_list(rows)
    hidden = datasets.Dataset.from_list([row | {"answerKey": ""} for row in rows])
    datasets.DatasetDict({"train": named, "validation": named, "test": hidden}).save_to_disk(folder)


def _nli_rows() -> list[dict]:
    return [
        {
            "premise": f"{_NAMES[n % 8]} has {n} cats.",
            "hypothesis": f"{_NAMES[n % 8]} has pets.",
            "label": n % 3,
            "why": f"There are {n}.",
        }
        for n in range(24)
    ]


def _anli(folder: Path) -> None:
    rows = [
        {
            "uid": f"u{n}",
            "premise": row["premise"],
            "hypothesis": row["hypothesis"],
            "label": row["label"],
            "reason": row["why"],
        }
        for n, row in enumerate(_nli_rows())
    ]
    features = datasets.Features(
        {name: datasets.Value("string") for name in rows[0]} | {"label": _NLI}
    )
    splits = {
        f"{split}_r1": datasets.Dataset.from_list(rows, features=features)
        for split in ("train", "dev", "test")
    }
    datasets.DatasetDict(splits).save_to_disk(folder)


def _esnli(folder: Path) -> None:
    """Parquet files in folders of splits, as the hub exports them, without names for the labels."""
    rows = [
        {key: row[key] for key in ("premise", "hypothesis", "label")}
        | {f"explanation_{k}": row["why"] for k in (1, 2, 3)}
        for row in _nli_rows()
    ]
    for split in SPLITS:
        file = folder / "plain_text" / split / "0000.parquet"
        file.parent.mkdir(parents=True)
        datasets.Dataset.from_list(rows).to_parquet(file)
