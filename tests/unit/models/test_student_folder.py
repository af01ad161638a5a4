"""The exported folder: it needs nothing of ours, says how it is used, and never takes another
student's place.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.inference import load_engine
from qcrd_ray.inference.answering import Student
from qcrd_ray.inference.heads import answer_questions
from qcrd_ray.models.card import render_card
from qcrd_ray.models.names import fingerprint
from qcrd_ray.models.pretrained import load_model
from qcrd_ray.models.student_folder import StudentFolder, export_student
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.arguments import read_arguments

RESULTS = {
    "rows": [
        {
            "name": "student",
            "head": "rationale",
            "split": "test",
            "correct": 8,
            "total": 10,
            "accuracy": 0.8,
            "low": 0.49,
            "high": 0.94,
            "unanswered": 1,
        }
    ],
    "notes": ["a note on what is missing"],
}
VOTES = ("vote", "judged vote", "best", "any")


@pytest.fixture
def run(make_run):
    return make_run()


@pytest.mark.parametrize(
    ("kind", "longest"), [("exported_student", 64), ("exported_decoder", 64 + 12)]
)
def test_it_loads_with_transformers_and_nothing_of_ours(kind, longest, request):
    """The lines of the card are run as they stand, where the package cannot be imported, and write
    what our engine writes: a plain tokenizer gives `generate` an argument that it refuses, and a
    decoder-only student wants its question framed as in training.
    """
    student = request.getfixturevalue(kind)
    (code,) = re.findall(
        r"```python\n(.*?)```", (student / "README.md").read_text(), flags=re.DOTALL
    )
    script = f"import sys; sys.modules['qcrd_ray'] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=student, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    opened, engine = StudentFolder.open(student), load_engine(student, max_input_tokens=1_000)
    prompts = [
        opened.facts[f"{head}_prefix"] + opened.facts["example"]["input"]
        for head in ("predict", "explain")
    ]
    written = [text.text for (text,) in engine.generate(prompts, max_tokens=12)]
    assert [line.strip() for line in done.stdout.strip("\n").split("\n")] == written
    assert engine.model.generation_config.max_new_tokens == 12
    assert not engine.model.generation_config.do_sample
    assert AutoTokenizer.from_pretrained(student).model_max_length == longest


def test_weights_are_those_of_the_best_checkpoint(run):
    recipe, folder = run
    student = export_student(recipe, folder, results=RESULTS)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(student).state_dict()
    for name, weight in (
        AutoModelForSeq2SeqLM.from_pretrained(folder.training("qcrd") / "best").state_dict().items()
    ):
        assert torch.equal(weight, theirs[name]), name


def test_the_card_names_the_module_of_a_task_of_ones_own(run):
    recipe, folder = run
    own = recipe.model_copy(
        update={"task": recipe.task.model_copy(update={"kind": "own_task:YesNo"})}
    )
    student = export_student(own, folder, results=RESULTS)
    assert "defined by the module `own_task`" in (student / "README.md").read_text()
    opened = StudentFolder.open(student, trust_task=True)
    assert opened.facts["kind"] == "own_task:YesNo"


def test_the_card_says_what_it_is_made_of(run):
    recipe, folder = run
    card = (export_student(recipe, folder, results=RESULTS) / "README.md").read_text()
    assert "| test | student | rationale | 80.0 | 49.0 - 94.0 | 8/10 | 1 |" in card
    assert "Note: a note on what is missing." in card
    assert "12 generated word_problems questions (kind seen, seed 1)" in card
    assert "round 1 of 2, the best on validation by mean" in card
    assert "## Licence" in card and "{" not in card.replace("{answer}", "").split("## Results")[1]
    assert "/private" not in card and str(folder.root) not in card, (
        "a card is published; the paths of the machine are not"
    )


def test_the_card_says_what_the_discriminator_is_worth(make_run):
    recipe, folder = make_run()
    plain = (export_student(recipe, folder, results=RESULTS) / "README.md").read_text()
    assert "rationales in training.\n" in plain, "an older run was not probed"
    result = folder.training("qcrd") / "result.json"
    fresh = {"auc_fresh_within_question": 0.51, "fresh_questions": 63, "fresh_score_spread": 0.003}
    result.write_text(json.dumps(json.loads(result.read_text()) | {"discriminator": fresh}))
    card = (export_student(recipe, folder, results=RESULTS) / "README.md").read_text()
    assert "rationales in training. The discriminator has collapsed: on 63 held-out" in card


def test_the_card_says_what_the_judged_vote_costs_only_where_it_was_measured(make_run):
    recipe, folder = make_run()
    student = export_student(recipe, folder, results=RESULTS)
    assert "judged vote" not in (student / "README.md").read_text()
    greedy = RESULTS["rows"][0] | {"tokens": 20.0, "milliseconds": 0.5}
    voted = greedy | {"accuracy": 0.9, "tokens": 160.0, "milliseconds": 6.0}
    quality = {
        "two_sided": 6,
        "spread": 0.3,
        "auc_within_question": 0.87,
        "calibration_error": 0.04,
    }
    judge = recipe.judge.model_copy(update={"samples": 8, "inputs": ("label", "steps")})

    def card(quality):
        return render_card(
            recipe.model_copy(update={"judge": judge}),
            folder,
            results={
                "rows": [greedy, *(voted | {"head": f"{kind} of 8"} for kind in VOTES)],
                "judges": {"student": {"test": {"judge": quality}}},
                "splits": {},
                "notes": [],
            },
            task=json.loads((student / "task.json").read_text()),
            discriminator=False,
        )

    text = card(quality)
    assert "| test | 80.0 | 90.0 | 20 | 160 | 0.5 | 6.0 | 0.87 | 0.04 |" in text
    assert "how likely the label head finds its answer, whether its arithmetic steps hold" in text
    assert "| any of 8 (ceiling) |" in text and "is a ceiling and no result" in text
    assert "does not judge" not in text
    assert "The judge does not judge on test" in card(quality | {"spread": 0.001})


def test_the_folder_alone_rebuilds_the_task(exported_student):
    opened = StudentFolder.open(exported_student)
    assert opened.task.recipe.kind == "word_problems"
    assert opened.discriminator == exported_student / "discriminator"
    assert opened.facts["predict_prefix"] == "predict: "
    assert opened.facts["example"]["question"]


def test_a_finetuned_student_has_no_discriminator(run):
    recipe, folder = run
    recipe = recipe.model_copy(
        update={"objective": recipe.objective.model_copy(update={"name": "finetune"})}
    )
    student = export_student(recipe, folder, results=RESULTS)
    assert StudentFolder.open(student).discriminator is None
    assert "arXiv" not in (student / "README.md").read_text()


def test_exporting_again_renews_the_card(run):
    recipe, folder = run
    export_student(recipe, folder, results=RESULTS)
    again = export_student(recipe, folder, results={**RESULTS, "notes": ["measured anew"]})
    assert "measured anew" in (again / "README.md").read_text()
    assert sorted(path.name for path in folder.root.iterdir() if path.name.startswith(".")) == []


def test_another_student_is_never_written_over(run):
    """A second training into the same run folder must not make a published student disappear."""
    recipe, folder = run
    student = export_student(recipe, folder, results=RESULTS)
    before = (student / "model.safetensors").read_bytes()
    shutil.copy(
        folder.training("finetune") / "best" / "model.safetensors", folder.training("qcrd") / "best"
    )
    with pytest.raises(UserError, match="holds another student"):
        export_student(recipe, folder, results=RESULTS)
    assert (student / "model.safetensors").read_bytes() == before


def test_a_folder_of_the_user_is_never_written_over(run):
    recipe, folder = run
    folder.student.mkdir()
    (folder.student / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="move it away"):
        export_student(recipe, folder, results=RESULTS)
    assert (folder.student / "thesis.txt").read_text() == "mine"


def test_a_killed_export_leaves_nothing_half_done(run, monkeypatch):
    recipe, folder = run
    monkeypatch.setattr("qcrd_ray.models.student_folder.render_card", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_student(recipe, folder, results=RESULTS)
    assert not folder.student.exists()
    monkeypatch.undo()
    assert export_student(recipe, folder, results=RESULTS).is_dir()


def test_nothing_trained_yet(run):
    recipe, folder = run
    shutil.rmtree(folder.training("qcrd") / "best")
    with pytest.raises(UserError, match="run `qcrd train` first"):
        export_student(recipe, folder, results=RESULTS)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: shutil.rmtree(path), "no such folder"),
        (lambda path: (path / "task.json").unlink(), r"holds no task\.json"),
        (lambda path: (path / "task.json").write_text("{"), "is damaged"),
        (lambda path: (path / "task.json").write_text("[]"), "is damaged"),
        (
            lambda path: (path / "task.json").write_text(json.dumps({"task": {"kind": "poetry"}})),
            "is damaged",
        ),
        (lambda path: (path / "tokenizer.json").unlink(), "tokenizer"),
        # guards tracebacks out of the workers that were started to load them
        (lambda path: (path / "model.safetensors").unlink(), "holds no weights"),
        (lambda path: cut(path / "model.safetensors"), r"student/model\.safetensors is damaged"),
        (lambda path: cut(path / "discriminator" / "model.safetensors"), "is damaged"),
    ],
)
def test_what_is_no_student_folder_is_told(exported_student, tmp_path, damage, told):
    copy = shutil.copytree(exported_student, tmp_path / "student")
    damage(copy)
    with pytest.raises(UserError, match=told):
        StudentFolder.open(copy)


# --- Models with code of their own ---

CODE = """
from transformers import T5ForConditionalGeneration

from .scale import SCALE


class OwnT5(T5ForConditionalGeneration):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = SCALE * output.logits
        return output
"""


@pytest.fixture(scope="module")
def own_code_model(tiny_student, tmp_path_factory):
    """A T5 whose class lies in its folder, and generates other texts than the library's T5."""
    folder = shutil.copytree(tiny_student, tmp_path_factory.mktemp("own") / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSeq2SeqLM": "modeling_own.OwnT5"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text(CODE)
    (folder / "scale.py").write_text("SCALE = -1.0\n")
    return folder


@pytest.fixture
def own_code_run(run, own_code_model):
    """A finished run of that model, saved as training saves it."""
    recipe, folder = run
    best = folder.training("qcrd") / "best"
    tokenizer = AutoTokenizer.from_pretrained(own_code_model)
    shutil.rmtree(best)
    load_model(own_code_model, trust_remote_code=True).save_pretrained(best)
    tokenizer.save_pretrained(best)
    student = recipe.student.model_copy(update={"trust_remote_code": True})
    return recipe.model_copy(update={"student": student}), folder


def test_own_code_is_exported_and_runs_only_when_asked(own_code_run, own_code_model):
    """Bug guarded: `trust_remote_code` was dropped, and the library's T5 took the model's place."""
    recipe, folder = own_code_run
    student = export_student(recipe, folder, results=RESULTS)
    assert {"modeling_own.py", "scale.py"} <= {file.name for file in student.iterdir()}
    opened = StudentFolder.open(student, trust_remote_code=True)
    assert opened.facts["custom_code"] == ["modeling_own.py"]
    prompts = ["predict: 3 plus 4"]
    own, original, library = (
        load_engine(path, trust_remote_code=trust).generate(prompts, max_tokens=6)
        for path, trust in ((student, True), (own_code_model, True), (student, False))
    )
    assert own == original != library
    refusal = r"has code of its own \(modeling_own\.py\)\. Read it, .*serve\.trust_remote_code"
    with pytest.raises(UserError, match=refusal):
        StudentFolder.open(student)
    with pytest.raises(UserError, match=refusal):
        read_arguments({"student": str(student)})
    folder, serve = read_arguments({"student": str(student), "trust_remote_code": "true"})
    question = Question(id="1", question="3 plus 4")
    (answer,) = answer_questions(
        Student(folder, engine=serve.engine).engine,
        folder.task,
        [question],
        head="label",
        max_tokens=6,
    )
    assert answer.text == own[0][0].text


def test_the_card_of_own_code_says_so_and_its_lines_run(own_code_run):
    recipe, folder = own_code_run
    student = export_student(recipe, folder, results=RESULTS)
    card = (student / "README.md").read_text()
    assert "code of its own (`modeling_own.py`)" in card and "qcrd serve" not in card
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=student, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_own_code_that_is_not_in_the_folder_is_refused(own_code_run):
    recipe, folder = own_code_run
    best = folder.training("qcrd") / "best"
    config = json.loads((best / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSeq2SeqLM": "owner/name--modeling_own.OwnT5"}
    (best / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"not in that folder: owner/name--modeling_own\.py"):
        export_student(recipe, folder, results=RESULTS)
    assert not folder.student.exists()


def test_the_code_of_a_model_is_part_of_its_fingerprint(own_code_model, tmp_path):
    copy = shutil.copytree(own_code_model, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(own_code_model)
    (copy / "modeling_own.py").write_text(CODE + "\n")
    assert fingerprint(copy) != fingerprint(own_code_model)


def test_the_endpoint_runs_no_code_of_a_model_unless_it_is_asked_to():
    """What may run code must be asked for by name."""
    assert ServingRecipe().trust_remote_code is False
