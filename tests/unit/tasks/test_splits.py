"""A source is read once, and again whenever anything has changed that decides what it becomes."""

from __future__ import annotations

import json

import pytest

from qcrd_ray.data.overlap import same_in_files, same_questions
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks import splits
from qcrd_ray.tasks.questions import iter_questions
from qcrd_ray.tasks.splits import load_split, store_split, write_split


@pytest.fixture
def make(tmp_path):
    """A recipe with three questions; ``changes`` are of its `data` section or its `task`."""

    def _make(task=None, **changes):
        for split in ("train", "validation", "test"):
            file = tmp_path / f"{split}.jsonl"
            if not file.exists():
                write(file, [f"{split}-{i}" for i in range(3)])
        data = {name: {"path": str(tmp_path / f"{name}.jsonl")} for name in ("train", "validation")}
        return Recipe.model_validate(
            {
                "name": "x",
                "run": str(tmp_path / "run"),
                "task": {"kind": "arithmetic"} | (task or {}),
                "data": data | {"test": {"path": str(tmp_path / "test.jsonl")}} | changes,
                "teacher": {"source": "recording", "path": "t.jsonl"},
                "student": {"scratch": {}},
            }
        )

    return _make


def write(file, ids, answer="2"):
    rows = [
        {"id": id, "question": f"{id} + 1?", "answer": answer, "other": f"{answer}00"} for id in ids
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def reads(monkeypatch):
    """How often a source has been read so far."""
    count = []
    read = splits.write_questions
    monkeypatch.setattr(splits, "write_questions", lambda *a, **k: count.append(1) or read(*a, **k))
    return count


def test_an_unchanged_source_is_read_once(make, reads, tmp_path):
    """Bug guarded: a call that went on read a million questions three times, for half a minute
    each.
    """
    folder = RunFolder(tmp_path / "run")
    first = store_split(make(), folder, "train")
    assert write_split(make(), folder, "train") == (3, 0)
    assert store_split(make(), folder, "train") == first
    assert len(reads) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"columns": {"answer": "other"}},
        {"values": {"2": "3"}},
        {"task": {"max_question_chars": 9}},
        {"task": {"kind": "short_text"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_changed_recipe_reads_it_again(make, reads, tmp_path, changes):
    folder = RunFolder(tmp_path / "run")
    write_split(make(), folder, "train")
    recipe = make(**changes)
    if "max_question_chars" in str(changes):
        with pytest.raises(UserError, match=r"^data\.train: .*none of its 3 rows"):
            write_split(recipe, folder, "train")
    else:
        assert store_split(recipe, folder, "train") == load_split(recipe, "train")
    assert len(reads) >= 2


def test_a_changed_source_is_read_again(make, reads, tmp_path):
    folder = RunFolder(tmp_path / "run")
    write_split(make(), folder, "train")
    write(tmp_path / "train.jsonl", ["a", "b"], answer="7")
    questions, _ = store_split(make(), folder, "train")
    assert [(each.id, each.answer) for each in questions] == [("a", "7"), ("b", "7")]
    rows = make(train={"path": str(tmp_path / "train.jsonl"), "rows": [1, 2]})
    assert [each.id for each in store_split(rows, folder, "train")[0]] == ["b"]


def test_other_code_reads_it_again(make, reads, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    write_split(make(), folder, "train")
    monkeypatch.setattr(splits, "_code", lambda: "a newer version")
    write_split(make(), folder, "train")
    assert len(reads) == 2


def test_a_task_of_ones_own_is_trusted_within_one_process(make, reads, tmp_path, monkeypatch):
    """Its module may have been edited since."""
    folder, own = RunFolder(tmp_path / "run"), {"kind": "qcrd_ray.tasks.arithmetic:Arithmetic"}
    write_split(make(own), folder, "train")
    write_split(make(own), folder, "train")
    assert len(reads) == 1
    monkeypatch.setattr(splits, "_PROCESS", "another process")
    write_split(make(own), folder, "train")
    assert len(reads) == 2


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"\0" * 4096])
@pytest.mark.parametrize("which", ["questions", "rejected"])
def test_a_file_that_is_gone_or_torn_is_written_again(make, reads, tmp_path, content, which):
    folder = RunFolder(tmp_path / "run")
    first = store_split(make(), folder, "train")
    file = getattr(folder, which)("train")
    file.unlink() if content is None else file.write_bytes(content)
    assert store_split(make(), folder, "train") == first
    assert len(reads) == 2


def test_what_the_checks_read_is_kept_for_the_run(make, reads, tmp_path):
    """Bug guarded: the checks held every question of a million in memory, and read them once more
    than the run did.
    """
    recipe, folder = make(), RunFolder(tmp_path / "run")
    questions = Questions(recipe)
    assert questions.count("train") == 3
    assert [each.id for each in questions.first("train", 2)] == ["train-0", "train-1"]
    assert not folder.root.exists()  # another recipe's folder must not be touched by checks
    questions.keep(folder)
    assert write_split(recipe, folder, "train") == (3, 0)
    again = Questions(recipe)
    assert again.read("train").questions == folder.questions("train")
    assert len(reads) == 1


def test_the_same_questions_of_two_files(make, tmp_path):
    write(tmp_path / "train.jsonl", ["a", "b", "c", "d"])
    write(tmp_path / "test.jsonl", ["C", "x", "A "])
    folder, recipe = RunFolder(tmp_path / "run"), make()
    for split in ("train", "validation", "test"):
        write_split(recipe, folder, split)
    lists = {
        split: list(iter_questions(folder.questions(split)))
        for split in ("train", "validation", "test")
    }
    for one, other in [("test", "train"), ("train", "test"), ("validation", "train")]:
        found = same_in_files(folder.questions(one), folder.questions(other))
        assert found == same_questions(lists[one], lists[other])
    assert same_in_files(folder.questions("test"), folder.questions("train")) == ["C", "A "]
