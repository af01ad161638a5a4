"""The doctor says what it can know before a run: what does not fit is found in seconds, not hours.
Each warning has its border, on both sides.
"""

from __future__ import annotations

import json

import pytest

from qcrd_ray.doctor import diagnosis
from qcrd_ray.doctor.fit_checks import check_plan, check_recording, check_task
from qcrd_ray.doctor.questions import Questions
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe


def make(
    tmp_path,
    *,
    questions=4,
    recorded=None,
    kind="arithmetic",
    text="So the answer is 2.",
    **changes,
):
    """A recipe of ``questions`` with so many completions each: ``recorded``, three where None."""
    data, teacher = tmp_path / "q.jsonl", tmp_path / "t.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"What is {i} + 1?", "answer": "2"} for i in range(questions)
    ]
    if kind != "arithmetic":
        rows = [row | {"answer": "yes"} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = recorded or [3] * questions
    lines = [
        {"id": f"q{i}", "completion": text} for i, count in enumerate(counts) for _ in range(count)
    ]
    teacher.write_text("".join(json.dumps(line) + "\n" for line in lines))
    split = {"path": str(data)}
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "run": str(tmp_path / "run"),
            "task": {"kind": kind},
            "data": {"train": split, "validation": split, "test": split},
            "teacher": {"source": "recording", "path": str(teacher)},
            "sampling": {"k": 3},
            "train": {"batch_size": 4},
            "student": {"scratch": {}},
            **changes,
        }
    )
    return recipe, Questions(recipe)


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("WARNING: ")]


# --- The recording ---


def test_a_recording_that_fits_has_no_warning(tmp_path):
    told = check_recording(*make(tmp_path))
    assert warnings(told) == [] and told.startswith("3 completions a question, of 4 questions")
    assert "of 4 texts 4 can be read" in told


@pytest.mark.parametrize(
    ("recorded", "changes", "words"),
    [
        ([3, 3, 3, 0], {}, "1 questions have no completion, and will fail: such as 'q3'"),
        ([3, 3, 2, 3], {}, "1 questions have fewer than sampling.k = 3 completions, and will fail"),
        ([3, 2, 2, 2], {"vote": {"incomplete": "vote"}}, "3 questions have fewer .* vote over"),
        (
            [1, 3, 3, 3],
            {"sampling": {"k": 4}, "generation": {"max_failed_share": 1}},
            "4 questions",
        ),
    ],
)
def test_too_few_completions_are_warned_of(tmp_path, recorded, changes, words):
    import re

    (warning,) = warnings(check_recording(*make(tmp_path, recorded=recorded, **changes)))
    assert re.search(words, warning)


def test_k_above_all_that_was_recorded_is_refused_with_the_k_that_works(tmp_path):
    """Bug guarded: each question failed after the run had begun, and the advice was to look at the
    teacher.
    """
    recipe = make(tmp_path, sampling={"k": 5})
    with pytest.raises(UserError, match=r"4 of 4 .*sampling\.k = 5.*set sampling\.k to 3"):
        check_recording(*recipe)
    check_recording(*make(tmp_path, sampling={"k": 3}))


def test_a_recording_of_other_questions_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"3 of 4 questions .* see that the ids are the same"):
        check_recording(*make(tmp_path, recorded=[3, 0, 0, 0]))


def test_texts_that_no_one_can_read_are_refused_with_one_of_them(tmp_path):
    recipe = make(tmp_path, text="Lovely weather.")
    with pytest.raises(UserError, match=r"(?s)of 4 texts 0 can .*Lovely weather.*task\.kind"):
        check_recording(*recipe)


# --- Numbers of the training ---


def test_a_plan_that_fits_has_no_warning(tmp_path):
    assert warnings(check_plan(*make(tmp_path))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"batch_size": 5}}, "train.batch_size 5 is above the 4 training questions"),
        (
            {"train": {"batch_size": 4, "rounds": 3}, "negatives": {"lag": 3}},
            "negatives.lag 3 is not below the 3 train.rounds",
        ),
        ({"sampling": {"k": 1}}, "one sample a question has no minority"),
    ],
)
def test_what_hardly_works_is_warned_of(tmp_path, changes, words):
    (warning,) = warnings(check_plan(*make(tmp_path, **changes)))
    assert words in warning


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"batch_size": 4, "rounds": 3}, "negatives": {"lag": 2}},
        {"train": {"batch_size": 4, "rounds": 1}, "negatives": {"lag": 1, "student": False}},
        {"sampling": {"k": 1}, "objective": {"name": "dss"}},
        {"sampling": {"k": 1}, "negatives": {"teacher": False}},
    ],
)
def test_what_works_is_not(tmp_path, changes):
    assert warnings(check_plan(*make(tmp_path, **changes))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sampling": {"k": 1}, "negatives": {"student": False}},
            r"sampling\.k: one sample .* there are no other wrong rationales",
        ),
        (
            {"negatives": {"student": False, "teacher": False}},
            r"all sources of them are off",
        ),
    ],
)
def test_a_method_without_the_wrong_rationales_that_it_learns_from_is_refused(
    tmp_path, changes, words
):
    with pytest.raises(UserError, match=words):
        check_plan(*make(tmp_path, **changes))
    check_plan(*make(tmp_path, **changes | {"objective": {"beta": 0}}))


# --- A task of one's own ---

TASK = """
from dataclasses import dataclass
from qcrd_ray.tasks.labels import LabelledTask

@dataclass(frozen=True)
class Mine(LabelledTask):
    INSTRUCTION = 'Answer yes or no. End with "{{closing}}"'
    LABELS = {{"yes": "yes|ja", "no": "no"}}

    {method}
"""


def own(tmp_path, monkeypatch, name, method):
    (tmp_path / f"{name}.py").write_text(TASK.format(method=method))
    monkeypatch.syspath_prepend(tmp_path)
    return make(tmp_path, kind=f"{name}:Mine")


def test_a_task_that_keeps_its_word_passes(tmp_path, monkeypatch):
    told = check_task(*own(tmp_path, monkeypatch, "good_task", "pass"))
    assert told == "good_task:Mine, tried on 4 questions"
    assert check_task(*make(tmp_path)) == "arithmetic"


@pytest.mark.parametrize(
    ("name", "method", "words"),
    [
        (
            "swinging",
            "def canonical(self, answer, _): return {'yes': 'Yes', 'Yes': 'yes'}.get(answer)",
            r"canonical must take its own spelling back .* makes 'yes' of its own 'Yes'",
        ),
        (
            "mislabels",
            "def label(self, answer, question): return answer[::-1]",
            r"canonical must read label back: label\('yes'\) is 'sey', which it reads as None",
        ),
        (
            "mumbles",
            "def explanation(self, rationale, answer, question): return rationale",
            r"parse must read explanation back: it reads None from 'I think so\.'",
        ),
        (
            "mistyped",
            "def student_input(self, question): return question.qestion",
            r"Mine\.teacher_messages fails at question 'q0': AttributeError.*mistyped\.py:10",
        ),
    ],
)
def test_a_task_that_breaks_its_word_is_told_by_example(tmp_path, monkeypatch, name, method, words):
    """Bug guarded: a `canonical` that is not idempotent scored right answers as wrong, silently."""
    with pytest.raises(UserError, match=words):
        check_task(*own(tmp_path, monkeypatch, name, method))


def test_a_typo_that_shows_while_questions_are_read_is_told_with_its_line(tmp_path, monkeypatch):
    """Bug guarded: a bare traceback, at the first row."""
    method = "def check(self, question): return qestion.text"
    recipe, _ = own(tmp_path, monkeypatch, "checks_wrong", method)
    with pytest.raises(UserError, match=r"checks_wrong:Mine: NameError: .*checks_wrong\.py:10"):
        diagnosis.preflight(recipe)


def test_a_warning_of_the_doctor_is_logged_by_a_run(tmp_path, caplog, monkeypatch):
    recipe, _ = make(tmp_path, train={"batch_size": 9})
    diagnosis.preflight(recipe)
    assert "training: train.batch_size 9 is above the 4" in caplog.text


def test_rejected_rows_are_shown_with_the_first_reason(tmp_path):
    from qcrd_ray.doctor.recipe_checks import check_questions

    recipe, questions = make(tmp_path)
    with (tmp_path / "q.jsonl").open("ab") as file:
        file.write('{"id": "ü", "question": "?"}\n'.encode("latin-1"))
    told = check_questions(recipe, questions)
    assert "train 4 (and 1 rejected)" in told
    assert "WARNING: train: 1 rows are rejected, the first is row 5: not UTF-8" in told
    assert "iconv" in told
