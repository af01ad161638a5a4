"""The command as a user meets it: exit codes, and mistakes in words, without a traceback."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from report_tiny import whole_run

from qcrd_ray import __version__
from qcrd_ray.cli import main
from qcrd_ray.errors import UserError
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.recipe.task import KINDS
from qcrd_ray.runs import progress

PATIENCE = 3  # the tests share their cores with other work

RECIPE = """
name: x
run: {run}
task: {{kind: arithmetic}}
data:
  train: {{path: {data}}}
  validation: {{path: {data}}}
  test: {{path: {data}}}
teacher: {{source: recording, path: {teacher}}}
student: {{scratch: {{}}}}
"""


@dataclass
class Answer:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def qcrd(monkeypatch, capsys):
    """Call the command in this process, as its console script would: a process of its own costs
    seconds of imports a call.
    """

    def call(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["qcrd", *map(str, arguments)])
        monkeypatch.setattr(progress.console, "_file", None)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "questions.jsonl").write_text(
        '{"id": "a", "question": "What is 1 + 1?", "answer": "2"}\n'
    )
    (tmp_path / "teacher.jsonl").write_text(
        '{"id": "a", "completion": "1 + 1 = 2. The answer is 2."}\n'
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.format(
            run=tmp_path / "run",
            data=tmp_path / "questions.jsonl",
            teacher=tmp_path / "teacher.jsonl",
        )
    )
    return path


def refused(answer, *words):
    """Exit code 1, every word in the message, no traceback and nothing on standard output."""
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    for word in words:
        assert word in answer.stderr, answer.stderr


def test_version():
    """Through the real console script: it is installed and starts."""
    script = Path(sys.executable).with_name("qcrd")
    assert (
        subprocess.run(
            [script, "--version"], capture_output=True, text=True, timeout=60
        ).stdout.strip()
        == f"qcrd {__version__}"
    )


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["run"], ["run", "a.yaml", "--sett", "x=1"], ["serve", "x", "--port", "99999"]],
)
def test_wrong_usage_exits_2(qcrd, arguments, tmp_path):
    answer = qcrd(*arguments, cwd=tmp_path)
    assert answer.returncode == 2 and "Traceback" not in answer.stderr


def test_init_writes_a_recipe_that_loads_and_never_overwrites(qcrd, tmp_path):
    assert qcrd("init", "new.yaml", cwd=tmp_path).returncode == 0
    assert load_recipe(tmp_path / "new.yaml").task.kind == "arithmetic"
    refused(qcrd("init", "new.yaml", cwd=tmp_path), "new.yaml exists")


@pytest.mark.parametrize("task", [*KINDS, "my_module:MyTask"])
def test_init_writes_what_each_choice_needs_and_it_loads(qcrd, tmp_path, task):
    """Over the product of all choices: each recipe is valid as it stands, and short."""
    for teacher in ("serve", "openai", "recording"):
        for student in ("t5", "causal"):
            name = f"{teacher}-{student}.yaml"
            given = ["--teacher", teacher, "--task", task, "--student", student]
            assert qcrd("init", name, *given, cwd=tmp_path).returncode == 0
            recipe = load_recipe(tmp_path / name)
            assert (recipe.teacher.source, recipe.task.kind) == (teacher, task)
            assert ("t5" in recipe.student.model) == (student == "t5")
            assert len((tmp_path / name).read_text().splitlines()) <= 36


def test_init_refuses_a_kind_that_is_none(qcrd, tmp_path):
    refused(qcrd("init", "x.yaml", "--task", "poetry", cwd=tmp_path), "--task: expected", "nli")
    assert not (tmp_path / "x.yaml").exists()


def test_init_full_writes_every_key(qcrd, tmp_path):
    assert qcrd("init", "x.yaml", "--full", cwd=tmp_path).returncode == 0
    assert "# keep_snapshots: null" in (tmp_path / "x.yaml").read_text()


def test_init_with_every_key_uncommented_still_loads(tmp_path):
    """Bug guarded: a default that is shown in a form that the recipe does not accept."""
    from qcrd_ray.recipe.template import render

    keep = (
        "scratch:",
        "generate:",
        "held_out:",
        "columns:",
        "rows:",
    )  # alternatives to keys that are set, and empty sections
    lines = [
        line
        for line in render().splitlines()
        if not line.startswith("# ") or line[2:3].islower() or line.startswith("#   ")
    ]
    text = "\n".join(
        line if line.lstrip("# ").startswith(keep) else _uncommented(line) for line in lines
    )
    (tmp_path / "all.yaml").write_text(text)
    assert load_recipe(tmp_path / "all.yaml").sampling.k == 5


def test_init_says_what_to_type_next(qcrd, tmp_path):
    """Bug guarded: a command that only those can paste who have the environment on their path."""
    answer = qcrd("init", "new.yaml", cwd=tmp_path)
    assert answer.stdout.splitlines()[-1] == "qcrd doctor new.yaml"


def test_schema_is_printed_or_written(qcrd, tmp_path):
    printed = json.loads(qcrd("schema", cwd=tmp_path).stdout)
    assert "teacher" in printed["properties"] and "extends" in printed["properties"]
    assert qcrd("schema", "recipe.json", cwd=tmp_path).stdout == "recipe.json\n"
    assert json.loads((tmp_path / "recipe.json").read_text()) == printed


@pytest.mark.parametrize("there_is_a_browser", [True, False])
def test_a_report_is_opened_when_asked(qcrd, there_is_a_browser, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or there_is_a_browser)
    folder = whole_run(tmp_path / "run")
    assert qcrd("report", folder.root, cwd=tmp_path).returncode == 0 and not opened
    answer = qcrd("report", folder.root, "--open", cwd=tmp_path)
    assert opened == [folder.report.as_uri()]
    assert ("no browser" in answer.stdout) is not there_is_a_browser


def test_completion_can_be_installed(qcrd, tmp_path):
    assert "--install-completion" in qcrd("--help", cwd=tmp_path).stdout


def _uncommented(line):
    indent = len(line) - len(line.lstrip())
    rest = line.lstrip()
    key = rest[2:].split(":")[0]
    return (
        " " * indent + rest[2:]
        if rest.startswith("# ") and key.replace("_", "").isalpha() and key.islower()
        else line
    )


@pytest.mark.parametrize("verb", ["run", "generate", "train", "evaluate"])
def test_a_missing_recipe_is_named(qcrd, verb, tmp_path):
    refused(qcrd(verb, "nowhere.yaml", cwd=tmp_path), "nowhere.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sampling.k=0", ["sampling.k"]),
        ("negatives.lag=0", ["negatives.lag"]),
        ("objective.beta=-1", ["objective.beta"]),
        ("train.round=3", ["train.round"]),
        ("trian.rounds=3", ["trian", "train"]),
        ("data.train.path=gone.jsonl", ["gone.jsonl", "data.train"]),
        ("teacher.path=gone.jsonl", ["gone.jsonl"]),
    ],
)
def test_a_wrong_value_is_named_before_anything_starts(qcrd, change, words, recipe):
    refused(qcrd("run", recipe, "--set", change, cwd=recipe.parent), *words)
    assert not (recipe.parent / "run").exists()


def test_a_task_of_ones_own_is_found_in_the_current_folder(qcrd, recipe):
    """A console script's own folder is the first of sys.path, and not the one that it is called
    from, which Ray's workers do have.
    """
    answer = qcrd("run", recipe, "--set", "task.kind=my_task:Mine", cwd=recipe.parent)
    refused(answer, "task.kind", "call `qcrd` from its folder")
    (recipe.parent / "my_task.py").write_text("class Yours: ...\n")
    refused(
        qcrd("run", recipe, "--set", "task.kind=my_task:Mine", cwd=recipe.parent),
        "my_task has no class Mine",
    )


def test_serving_something_that_is_no_student_folder(qcrd, tmp_path):
    refused(qcrd("serve", tmp_path, cwd=tmp_path), str(tmp_path))


def test_predict_finds_mistakes_before_it_starts_ray(qcrd, exported_student, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"problem": "1 + 1?"}\n')
    (tmp_path / "there.jsonl").write_text("mine")
    for arguments, message in [
        (["no/student", "in.jsonl", "out.jsonl"], "there is no such folder"),
        ([exported_student, "inn.jsonl", "out.jsonl"], "near it: in.jsonl"),
        ([exported_student, "in.jsonl", "there.jsonl"], "nothing is written over it"),
        ([exported_student, "in.jsonl", "out.jsonl"], "--column question=..."),
        (
            [exported_student, "in.jsonl", "out.jsonl", "--column", "problem"],
            "--column problem: give FIELD=NAME",
        ),
    ]:
        answer = qcrd("predict", *arguments, cwd=tmp_path)
        assert answer.returncode == 1 and message in answer.stderr.replace("\n", " "), answer
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "there.jsonl"]


@pytest.mark.parametrize("verb", ["serve", "predict"])
@pytest.mark.parametrize("given", [[], ["--address", "10.0.0.1:6379"]])
def test_a_students_verbs_take_the_address_of_a_ray(
    qcrd, verb, given, exported_student, tmp_path, monkeypatch
):
    """And join nobody's where none is given."""
    asked = []

    def connect(recipe):
        asked.append(recipe.address)
        raise UserError("seen")

    monkeypatch.setattr("qcrd_ray.cluster.resources.connect", connect)
    (tmp_path / "in.csv").write_text("question\n1 + 1?\n")
    files = ["in.csv", "out.csv"] if verb == "predict" else ["--port", "0"]
    refused(qcrd(verb, exported_student, *files, *given, cwd=tmp_path), "seen")
    assert asked == [given[-1] if given else None]


def test_what_nobody_foresaw_leaves_its_traceback_in_a_file(qcrd, recipe, monkeypatch, tmp_path):
    """Bug guarded: pages of frames on the screen."""
    monkeypatch.setattr("qcrd_ray.runs.unexpected.session_parent", lambda: tmp_path)

    def fail(*arguments):
        raise KeyError("boom")

    monkeypatch.setattr("qcrd_ray.doctor.diagnosis.check_versions", fail)
    answer = qcrd("doctor", recipe, cwd=tmp_path)
    refused(answer, "KeyError: 'boom'", "This was not foreseen")
    named = Path(answer.stderr.split("Its traceback: ")[1].strip())
    assert "in fail" in named.read_text() and named.is_relative_to(tmp_path)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_became_another_error_is_one(
    qcrd, recipe, monkeypatch, tmp_path, sent, code
):
    """Bug guarded: Ctrl-C while the libraries are imported was told as something that nobody
    foresaw, since pydantic makes an error of its own of it.
    """

    def interrupted():
        try:
            signal.raise_signal(sent)
        except KeyboardInterrupt as error:
            raise RuntimeError("SchemaError: KeyboardInterrupt") from error

    monkeypatch.setattr("qcrd_ray.doctor.diagnosis.check_versions", interrupted)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        answer = qcrd("doctor", recipe, cwd=tmp_path)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert answer.returncode == code
    assert "interrupted; the same command goes on" in answer.stderr
    assert "foreseen" not in answer.stderr


def test_a_jobs_log_keeps_the_traceback(qcrd, recipe, monkeypatch, tmp_path):
    """The node's files may go away with it."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr("qcrd_ray.doctor.diagnosis.check_versions", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        qcrd("doctor", recipe, cwd=tmp_path)


def test_the_doctor_says_something_while_it_works(qcrd, recipe, monkeypatch, tmp_path, capsys):
    """Bug guarded: not a word for 70 s, and then all at once."""
    from qcrd_ray.doctor import CheckResult

    shown = []

    def diagnose(path, overrides, *, starting):
        for name, ok in (("one", True), ("two", False)):
            starting(name)
            shown.append(capsys.readouterr())
            yield CheckResult(name=name, ok=ok, text="WARNING: [x]" if ok else "y")

    monkeypatch.setattr("qcrd_ray.doctor.diagnose", diagnose)
    last = qcrd("doctor", recipe, cwd=tmp_path)
    assert last.returncode == 1
    assert shown[1].out == "warn one: WARNING: [x]\n", "a result is shown as it is there"
    assert last.stdout == "FAIL two: y\n"


def test_the_doctor_speaks_within_two_seconds(recipe):
    """Through the real console script, whose first check imports Ray, torch and transformers."""
    script = Path(sys.executable).with_name("qcrd")
    start = time.monotonic()
    with subprocess.Popen([script, "doctor", recipe], stderr=subprocess.PIPE, text=True) as doctor:
        assert doctor.stderr.readline().startswith("checking the installation")
        took = time.monotonic() - start
        doctor.kill()
    assert took < 2 * PATIENCE
