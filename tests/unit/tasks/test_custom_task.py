"""Tasks of the user's own: the one in the docs works as it stands, and what is wrong with one is
named before anything starts.
"""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from pydantic import ValidationError

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.models.student_folder import TASK_FILE, StudentFolder
from qcrd_ray.recipe import Split, TaskRecipe
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task
from qcrd_ray.tasks.questions import read_questions

ASKED = Question(id="1", question="Is water wet?", answer="yes")


@pytest.fixture(scope="module")
def task():
    return build_task(TaskRecipe(kind="own_task:YesNo"))


def test_the_task_of_the_docs_asks_and_reads(task):
    assert isinstance(task, Task)
    assert "Answer yes or no" in task.teacher_messages(ASKED)[0]["content"] and task.teacher_prompt(
        ASKED
    ).endswith("Is water wet?\nA:")
    parsed = task.parse("Water clings to things. So the answer is Yes. That is all.", ASKED)
    assert (parsed.answer, parsed.rationale) == ("yes", "Water clings to things.")
    assert (
        task.parse("The answer is perhaps.", ASKED).reason
        == "the completion announces nothing that is yes or no"
    )
    assert task.parse(task.explanation("It clings.", "no", ASKED), ASKED).answer == "no"
    assert "'maybe' is not yes or no" in task.check(Question(id="1", question="?", answer="maybe"))


def test_its_questions_are_read_as_others_are(task, tmp_path):
    (tmp_path / "x.jsonl").write_text(
        '{"id": 1, "question": "One?", "answer": true}\n{"id": 2, "question": "Two?", "answer":'
        ' "perhaps"}\n'
    )
    values = {"true": "yes", "false": "no", "perhaps": "perhaps"}
    questions, rejected = read_questions(
        Split(path=str(tmp_path / "x.jsonl")),
        task=task,
        columns={},
        kind="own_task:YesNo",
        max_chars=99,
        values=values,
    )
    assert questions[0].answer == "yes" and "is not yes or no" in rejected[0].reason


def test_it_is_named_in_what_a_student_folder_says(task):
    assert task.describe()["kind"] == "own_task:YesNo"


def test_options_reach_it_and_no_other():
    recipe = TaskRecipe(kind="own_task:YesNo", options={"strict": True})
    assert build_task(recipe).recipe.options == {"strict": True}
    with pytest.raises(
        ValidationError, match="only a task of your own has them, and nli does not read strict"
    ):
        TaskRecipe(kind="nli", options={"strict": True})


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (
            "no_such_package.tasks:YesNo",
            (
                r"needs the module no_such_package\.tasks, and there is no no_such_package here:"
                r" call `qcrd` from its folder"
            ),
        ),
        ("own_task:YesOrNo", r"own_task has no class YesOrNo; did you mean own_task:YesNo\?"),
        ("own_task:re", "own_task has no class re"),
        ("own_task:NoParse", r"own_task:NoParse is no task: it has no method check\(question\)"),
        ("own_task:NoCanonical", r"no task: it has no method canonical\(answer, question\)"),
        (
            "own_task:TakesMore",
            r"label is called as label\(answer, question\), and takes \(self, answer, question,",
        ),
        ("own_task:TakesNothing", r"made with one argument.*it takes \(\)"),
    ],
)
def test_what_is_no_task_is_refused(kind, match):
    with pytest.raises(UserError, match=match):
        build_task(TaskRecipe(kind=kind))


def test_a_module_whose_own_imports_are_missing_says_which(tmp_path, monkeypatch):
    (tmp_path / "needy_task.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError,
        match="the module needy_task of needy_task:X needs no_such_library, which is not installed",
    ):
        build_task(TaskRecipe(kind="needy_task:X"))


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("typo_one", "class Mine(:\n    ...\n", r"SyntaxError: .*typo_one\.py.*1"),
        ("typo_two", "\nLABELS = labls\n", r"NameError: name 'labls' .*typo_two\.py:2"),
        ("typo_three", "from qcrd_ray.tasks.labels import Labeled\n", r"ImportError.*typo_three"),
    ],
)
def test_a_typo_in_its_module_is_named_with_its_line(tmp_path, monkeypatch, module, code, said):
    """Bug guarded: a traceback through importlib, of which the user's line is the last but one."""
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"the module {module} of .* cannot be imported: {said}"):
        build_task(TaskRecipe(kind=f"{module}:Mine"))


@pytest.mark.parametrize(
    "kind",
    [
        "yes_or_no",
        "own_task:",
        ":YesNo",
        "own task:YesNo",
        "own_task:YesNo:x/y",
        "../own_task:YesNo",
    ],
)
def test_a_kind_is_a_known_one_or_a_class(kind):
    with pytest.raises(
        ValidationError, match=r"short_text, or a task of your own as package\.module:Class"
    ):
        TaskRecipe(kind=kind)


def test_a_student_folder_says_which_module_it_needs(exported_student, tmp_path):
    """Bug guarded: "task.json is damaged" for a folder that only lacks its task's module here."""
    student = shutil.copytree(exported_student, tmp_path / "student")
    facts = json.loads((student / TASK_FILE).read_text())
    facts["task"]["kind"] = "no_such_package.tasks:YesNo"
    (student / TASK_FILE).write_text(json.dumps(facts))
    with pytest.raises(
        UserError,
        match=(
            r"task\.json: task\.kind: no_such_package\.tasks:YesNo needs the module"
            r" no_such_package\.tasks"
        ),
    ):
        StudentFolder.open(student, trust_task=True)
    facts["task"]["kind"] = "own_task:YesNo"
    (student / TASK_FILE).write_text(json.dumps(facts))
    assert StudentFolder.open(student, trust_task=True).task.canonical("Yes.", ASKED) == "yes"


def test_a_students_own_task_is_imported_only_where_it_is_trusted(
    exported_student, tmp_path, monkeypatch
):
    """Guards a downloaded student that runs a module which lies beside it, unasked."""
    student = shutil.copytree(exported_student, tmp_path / "student")
    (tmp_path / "lurking_task.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    facts = json.loads((student / TASK_FILE).read_text())
    facts["task"]["kind"] = "lurking_task:Own"
    (student / TASK_FILE).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"class lurking_task:Own.*--trust-task"):
        StudentFolder.open(student)
    assert "lurking_task" not in sys.modules
    with pytest.raises(SystemExit, match="it ran"):
        StudentFolder.open(student, trust_task=True)
