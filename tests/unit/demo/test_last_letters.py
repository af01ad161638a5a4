"""The task last letters: no name of a test question is trained on, the answers are right, every
text is spelt, and the job writes what the recipes read.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcrd_ray.demo.last_letters import questions as last_letters
from qcrd_ray.demo.last_letters.pretraining import make_questions
from qcrd_ray.demo.last_letters.tokenizer import WORDS, build_tokenizer
from qcrd_ray.errors import UserError
from qcrd_ray.models.pretrained import check_student
from qcrd_ray.recipe.file import load_recipe

ROOT = Path(__file__).resolve().parents[3]
DATA = os.environ.get("QCRD_DATASETS", "")
TASK = last_letters.last_letters_task()
NAMES = [f"{first}{last}" for first in ("Ma", "Jo", "Lu", "Ka") for last in "abcdefghijklmnopqr"]


def recorded(folder: Path, *, count: int = 30) -> Path:
    """A folder of recorded questions; each takes one name of the question before."""
    folder.mkdir(exist_ok=True)
    asked = [
        last_letters.ask(
            [NAMES[2 * i + j] for j in range(3)] + [f"Only{chr(97 + i % 26)}"], f"q{i}"
        )
        for i in range(count)
    ]
    asked.append(last_letters.ask(["Jose", "Luis", "Mo", "Al", "Bo"], "five"))
    _write(
        folder / "train.jsonl",
        [{"id": q.id, "question": q.question, "answer": q.answer} for q in asked],
    )
    _write(
        folder / "teacher.jsonl",
        [{"id": q.id, "completion": f"A: {q.rationale} The answer is {q.answer}."} for q in asked],
    )
    return folder


def _write(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def few(monkeypatch):
    """Files of a test's size."""
    monkeypatch.setattr(
        last_letters, "COMPOSED", {"validation": (0, 20), "tune_test": (0, 40), "test": (1, 60)}
    )


def names_in(file: Path) -> set[str]:
    rows = read(file)
    assert rows and all(len(last_letters.names_of(row["question"])) == 4 for row in rows)
    return {name.lower() for row in rows for name in last_letters.names_of(row["question"])}


def test_no_name_stands_in_two_of_training_validation_and_test(tmp_path, few):
    """Guards a test question about a name that was trained on; here most names occur twice."""
    made = last_letters.write_splits(recorded(tmp_path / "data"), tmp_path, held=12, seed=0)
    train, validation, test = (
        names_in(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")
    )
    assert not train & validation and not train & test and not validation & test
    assert names_in(tmp_path / "tune_test.jsonl") <= {name.lower() for name in made.kept_out[0]}
    assert made.left_out == 1 and len(made.train) == 30 - 12


def test_composed_questions_are_different_and_their_answers_the_last_letters(tmp_path, few):
    last_letters.write_splits(recorded(tmp_path / "data"), tmp_path, held=12, seed=0)
    rows = [
        row
        for split in ("validation", "tune_test", "test")
        for row in read(tmp_path / f"{split}.jsonl")
    ]
    assert len({row["question"] for row in rows}) == len({row["id"] for row in rows}) == 120
    for row in rows:
        assert row["answer"] == "".join(n[-1] for n in last_letters.names_of(row["question"]))


def test_the_recorded_completions_are_those_of_the_training_questions(tmp_path, few):
    last_letters.write_splits(recorded(tmp_path / "data"), tmp_path, held=12, seed=0)
    asked, said = (read(tmp_path / f"{name}.jsonl") for name in ("train", "teacher"))
    assert [row["id"] for row in said] == [row["id"] for row in asked]


def test_a_seed_is_a_split(tmp_path, few):
    data = recorded(tmp_path / "data")
    texts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        last_letters.write_splits(data, tmp_path / name, held=12, seed=seed)
        texts.append([(tmp_path / name / f"{s}.jsonl").read_text() for s in ("train", "test")])
    assert texts[0] == texts[1] != texts[2]


def test_too_few_questions_and_a_bad_row_are_said(tmp_path, few):
    data = recorded(tmp_path / "data", count=5)
    with pytest.raises(UserError, match="5 questions are about 4 names, and 5 of these"):
        last_letters.write_splits(data, tmp_path, held=5, seed=0)
    _write(data / "train.jsonl", [{"id": "1", "question": "?"}])
    with pytest.raises(UserError, match=r"train\.jsonl:1: .*answer"):
        last_letters.write_splits(data, tmp_path, held=5, seed=0)
    with pytest.raises(UserError, match="no such file"):
        last_letters.write_splits(tmp_path / "none", tmp_path, held=5, seed=0)


# --- The tokenizer ---


@pytest.mark.parametrize("ends_input", [True, False])
def test_the_tokenizer_gives_questions_rationales_and_answers_back(ends_input):
    """Guards names that come back with blanks between their letters, which no task could read."""
    tokenizer = build_tokenizer(ends_input=ends_input, max_tokens=192)
    for question in itertools.islice(make_questions((1, 2, 4), seed=5), 200):
        explanation = TASK.explanation(question.rationale or "", question.answer or "", question)
        for text in (f"explain: {question.question}", question.answer, explanation):
            ids = tokenizer(text).input_ids
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
        read = TASK.parse(explanation, question)
        assert read.answer == TASK.canonical(question.answer or "", question)


@pytest.mark.parametrize("text", ["is 'yel_e'.", "'eks' + 'sa'", "a + b = c", "'n', 'e'"])
def test_a_sign_does_not_vanish(text):
    """Bug guarded: a sign that decoding left out turned the wrong 'yel_e' into the right one."""
    tokenizer = build_tokenizer(ends_input=True, max_tokens=192)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_name_that_is_a_word_of_the_wording_is_spelt_between_quotes():
    tokenizer = build_tokenizer(ends_input=True, max_tokens=192)
    for word in WORDS:
        spelt = tokenizer.tokenize(f"letter of '{word}' is 'as'.")
        assert spelt == ["▁letter", "▁of", "▁'", *word, "'", "▁is", "▁'", "a", "s", "'", "."]


def test_made_up_names_are_none_of_those_to_avoid():
    alone = [q.question for q in itertools.islice(make_questions((1,), seed=0), 400)]
    avoid = {last_letters.names_of(question)[0].lower() for question in alone}
    others = itertools.islice(make_questions((1, 2), seed=0, avoid=avoid), 400)
    asked = [last_letters.names_of(q.question) for q in others]
    assert not avoid & {name.lower() for names in asked for name in names}
    assert {len(names) for names in asked} == {1, 2}


# --- The job, and the recorded data ---


@pytest.mark.parametrize("student", ["t5", "llama"])
def test_the_job_writes_what_the_recipes_read(student, tmp_path):
    """A base of two steps. Guards a file's name that differs between job and recipe."""
    call = [sys.executable, "jobs/make_last_letters.py", "--data", recorded(tmp_path / "data")]
    call += [
        "--out",
        tmp_path,
        "--held",
        "12",
        "--steps",
        "2",
        "--questions",
        "2",
        "--student",
        student,
    ]
    subprocess.run(
        [str(word) for word in call], cwd=ROOT, check=True, timeout=300, capture_output=True
    )
    recipe = load_recipe(ROOT / "jobs/recipes/compare_last_letters.yaml")
    paths = [getattr(recipe.data, split).path for split in ("train", "validation", "test")]
    for path in (*paths, recipe.teacher.path):
        assert (tmp_path / Path(path).relative_to("runs/last_letters")).is_file()
    assert recipe.task.closing == last_letters.CLOSING
    config, tokenizer = check_student(tmp_path / Path(recipe.student.model).name)
    assert config.is_encoder_decoder == (student == "t5")
    assert bool(tokenizer.chat_template) == (student == "llama")


@pytest.mark.skipif(
    not (DATA and Path(DATA, "last_letters").is_dir()),
    reason="QCRD_DATASETS names no folder of recorded completions",
)
def test_recorded_completions_are_read():
    """An independent parser finds 78.7 % of the single samples right, and 4 % without an answer."""
    folder = Path(DATA, "last_letters")
    asked = {row["id"]: row for row in read(folder / "train.jsonl")}
    right = unread = 0
    rows = read(folder / "teacher.jsonl")
    for row in rows:
        (question,) = [last_letters.Question(**asked[row["id"]])]
        answer = TASK.parse(row["completion"], question).answer
        right += answer == TASK.canonical(question.answer or "", question)
        unread += answer is None
    assert 0.777 <= right / len(rows) <= 0.797 and unread / len(rows) <= 0.006
