"""SVAMP with slots: no story is in two splits, nothing recorded is pretrained on, what the base
reads is right, and the job writes what the recipes read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcrd_ray.data.records import Question
from qcrd_ray.demo.reading import stories
from qcrd_ray.demo.reading.examples import (
    expression_from,
    read_examples,
    slotted_task,
    steps_of,
    with_slots,
)
from qcrd_ray.demo.reading.pretraining import train_tokenizer
from qcrd_ray.errors import UserError
from qcrd_ray.models.pretrained import check_student
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks.slots import numbers_of

ROOT = Path(__file__).resolve().parents[3]
DATA = os.environ.get("QCRD_DATASETS", "")
TASK = slotted_task()
THINGS = ("apples", "pears", "stones", "books", "cars", "eggs", "nuts", "pens", "toys", "coins")


def asked(thing: str, first: int, second: int) -> str:
    return f"{thing} {thing[::-1]} {thing}s: {first} less {second}?"


def recorded(folder: Path) -> Path:
    """Ten stories of four questions each, and two pretraining files, one row of it recorded."""
    rows = [
        {"id": f"{t}-{i}", "question": asked(t, 20 + i, 5), "answer": str(15 + i)}
        for i in range(4)
        for t in THINGS
    ]
    said = [
        {"id": row["id"], "completion": f"{20 + n} - 5 = {row['answer']}. It is {row['answer']}."}
        for row in rows
        for n in [int(row["answer"]) - 15]
    ]
    equation = {"id": "m-1", "question": "Al had 9 figs, ate 2.", "answer": "7"}
    known = {"id": "m-2", "question": rows[0]["question"].upper(), "answer": "15"}
    wrong = {"id": "m-3", "question": "Bo had 9 figs, ate 2.", "answer": "8"}
    mwp = [
        equation | {"equation_prefix": "- 9 2"},
        known | {"equation_prefix": "- 20 5"},
        wrong | {"equation_prefix": "- 9 2"},
    ]
    solution = {"id": "g-1", "question": "Cy has 4 hats, and twice as many caps?", "answer": "8"}
    gsm8k = [solution | {"rationale": "Cy has 4*2 = <<4*2=8>>8 caps."}]
    files = {"svamp/train": rows, "svamp/teacher": said, "mwp/train": mwp, "gsm8k/train": gsm8k}
    for name, content in files.items():
        file = folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return folder


@pytest.fixture
def few(monkeypatch):
    """Splits of a test's size."""
    monkeypatch.setattr(stories, "AT_LEAST", {"test": 9, "validation": 4})


def read(file: Path) -> list[dict]:
    with file.open() as lines:  # the recorded texts hold other line ends, as U+2028
        return [json.loads(line) for line in lines]


def test_a_story_is_in_one_split(tmp_path, few):
    """Guards a test question whose near twin, with other numbers, was trained on."""
    made = stories.write_splits(recorded(tmp_path / "data") / "svamp", tmp_path, seed=0)
    things = {
        split: {row["id"].split("-")[0] for row in read(tmp_path / f"{split}.jsonl")}
        for split in ("train", "validation", "test")
    }
    assert made.stories == 10 and [len(things[s]) for s in things] == [6, 1, 3]
    assert len(set.union(*things.values())) == 10
    assert [row["id"] for row in read(tmp_path / "teacher.jsonl")] == [
        row["id"] for row in read(tmp_path / "train.jsonl")
    ]
    again = stories.write_splits(tmp_path / "data" / "svamp", tmp_path / "again", seed=0)
    other = stories.write_splits(tmp_path / "data" / "svamp", tmp_path / "other", seed=1)
    assert again == made != other


def test_a_chain_of_like_questions_is_one_story():
    chain = ["a b c d", "c d a e f", "e f c g h d", "x y z"]
    assert stories.stories_of(chain) == [0, 0, 0, 3]


def test_too_few_stories_and_a_bad_row_are_said(tmp_path):
    data = recorded(tmp_path) / "svamp"
    with pytest.raises(UserError, match="40 questions on 10 stories leave none to train on"):
        stories.write_splits(data, tmp_path, seed=0)
    (data / "train.jsonl").write_text('{"id": "1", "question": "?"}\n')
    with pytest.raises(UserError, match=r"train\.jsonl:1: .*answer"):
        stories.write_splits(data, tmp_path, seed=0)


# --- What the base reads ---


def test_equations_and_solutions_become_examples_without_what_is_recorded(tmp_path):
    """The recorded question is left out in whatever case, and so is an equation that is wrong."""
    row = read(recorded(tmp_path) / "svamp" / "train.jsonl")[0]
    examples, counts = read_examples(tmp_path, recorded=[Question(**row)], seed=0)
    assert counts["mwp"] == counts["gsm8k"] == 1 == counts["left out, since recorded"]
    one, other, *built_in = examples
    assert (one.input, one.label) == ("Al had n1 figs, ate n2.", "- n1 n2")
    assert one.explanation == "n1 - n2 = r1. So the answer is r1."
    assert other.label == "* n1 2"
    assert other.explanation == "Cy has n1*2 = r1 caps. So the answer is r1."
    assert sum(bool(each.label) for each in built_in) > 0.9 * len(built_in)
    for each in examples[:300]:
        assert TASK.parse(each.explanation, each.question).answer == each.question.answer
        assert not each.label or TASK.canonical(each.label, each.question) == each.question.answer


def test_expressions_and_steps():
    assert with_slots("+ 5 * 5 12", numbers_of("5 and 5 and 7")) == "+ n1 * n2 12"
    assert steps_of("- n3 + n1 n2") == ("n1 + n2 = r1. n3 - r1 = r2.", "r2")
    text = "It is n1 + n2 = r1. Then n3 - r1 = r2. So the answer is r2."
    assert expression_from(text) == "- n3 + n1 n2"
    assert expression_from("n1 + n2 + n3 = r1. So the answer is r1.") == ""
    assert expression_from(text, most=1) == ""


def test_a_slot_is_one_token_and_a_digit_another():
    """Guards numbers cut into pieces of several digits, of which each must be learnt."""
    tokenizer = train_tokenizer(["n1 - n2 = r1. So the answer is r1.", "n1*n2 of 1200 pears"] * 9)
    assert tokenizer.tokenize("n1*n2 is 120") == ["▁n1", "*", "n2", *tokenizer.tokenize("is 120")]
    assert [piece.strip("▁") for piece in tokenizer.tokenize("120") if piece != "▁"] == [*"120"]
    text = "n1 - n2 = r1.\nso $n1*n2 of é 120%?"
    ids = tokenizer(text.replace("é", "e")).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("é", "e")


# --- The job, and the recorded data ---


def test_the_job_writes_what_the_recipes_read(tmp_path):
    """A base of two steps. Guards a file's name that differs between job and recipe."""
    data = recorded(tmp_path / "data")
    rows = read(data / "svamp" / "train.jsonl")
    many = [row | {"id": f"{row['id']}-{i}"} for i in range(11) for row in rows]
    (data / "svamp" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    said = [{"id": row["id"], "completion": "So the answer is 1."} for row in many]
    (data / "svamp" / "teacher.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    call = [sys.executable, "jobs/make_svamp.py", "--data", data, "--out", tmp_path]
    call += ["--steps", "2", "--questions", "2"]
    done = subprocess.run(
        [str(word) for word in call], cwd=ROOT, check=True, timeout=600, capture_output=True
    )
    assert b"440 questions on 10 stories: test 220, validation 132, train 88" in done.stdout
    assert b"left out, since recorded 1" in done.stdout
    recipe = load_recipe(ROOT / "jobs/recipes/compare_svamp_slots.yaml")
    paths = [getattr(recipe.data, split).path for split in ("train", "validation", "test")]
    for path in (*paths, recipe.teacher.path):
        assert (tmp_path / Path(path).relative_to("runs/svamp_slots")).is_file()
    config, _ = check_student(tmp_path / Path(recipe.student.model).name)
    assert config.is_encoder_decoder and recipe.task.kind == "slotted_arithmetic"


@pytest.mark.skipif(
    not (DATA and Path(DATA, "svamp").is_dir()),
    reason="QCRD_DATASETS names no folder of recorded completions",
)
def test_recorded_completions_are_read_as_with_digits():
    """Whatever GPT-3.5 wrote: the explanation with slots ends in the answer that was voted on, and
    19 of 20 right ones end in a computed result.
    """
    rows = {row["id"]: row for row in read(Path(DATA, "svamp", "train.jsonl"))}
    right = computed = 0
    for said in read(Path(DATA, "svamp", "teacher.jsonl"))[::7]:
        row = rows[said["id"]]
        question = Question(id=row["id"], question=row["question"], answer=row["answer"])
        parsed = TASK.parse(said["completion"], question)
        if parsed.answer is None:
            continue
        explanation = TASK.explanation(parsed.rationale, parsed.answer, question)
        assert TASK.parse(explanation, question).answer == parsed.answer
        if parsed.answer == row["answer"]:
            right += 1
            computed += explanation.rsplit(" ", 1)[1][0] == "r"
    assert right > 600 and computed / right >= 0.94
