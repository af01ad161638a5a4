"""Which trials of a comparison are run again, and with which seeds.

Trainings and the base's answers are made up: no Ray.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from training_tiny import BASE, tiny_recipe, write_run

from qcrd_ray.comparison import baselines, compare, read_methods, stage, trials
from qcrd_ray.comparison.notes import budget_notes
from qcrd_ray.comparison.trials import Trial, TrialRunner
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, student_predictions
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.pool import JobAnswers
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.files import write_table
from qcrd_ray.runs.provenance import describe_code
from qcrd_ray.tasks.word_problems import generate
from qcrd_ray.training import worker
from qcrd_ray.training.job import TrainingJob

FACTS = {
    **dict.fromkeys(("steps", "questions_seen", "tokens", "seconds", "best_round"), 1),
    **{"validation": {}, "rationales": {}, "discriminator": {}, "student": {}, "negatives": {}},
}


def write_questions(path, questions):
    rows = [
        {"id": q.id, "question": q.question, "answer": q.answer, "rationale": q.rationale}
        for q in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Comparison:
    """`dss` and the control on two seeds, in a run folder of files that can be changed between
    calls.
    """

    def __init__(self, root, monkeypatch):
        self.test, self.validation, self.control = (
            root / f"{name}.jsonl" for name in ("test", "validation", "control")
        )
        for file, seed in ((self.test, 3), (self.validation, 4), (self.control, 5)):
            write_questions(file, generate(6, seed=seed))
        self.file, self.folder = root / "recipe.yaml", write_run(root / "run")
        data = BASE["data"] | {
            "test": {"path": str(self.test)},
            "validation": {"path": str(self.validation)},
        }
        compared = {
            "control": {"path": str(self.control)},
            "resamples": 1_000,
            "variants": {"x": {"like": "dss"}},
        }
        told = BASE | {"run": str(root / "run"), "data": data, "compare": compared}
        self.file.write_text(yaml.safe_dump(told))
        monkeypatch.setattr(stage, "_run", self._train)
        monkeypatch.setattr(baselines, "run_pool", self._answer)

    def call(self, names=("dss", "control")):
        """Compare; returns the table, (method, seed) of the trials that were run, and whether the
        base was asked.
        """
        self.ran, self.seeds, self.asked_base = [], [], False
        recipe = load_recipe(self.file)
        results = compare(recipe, self.folder, read_methods(self.file, [], names), seeds=2)
        return results, sorted(self.ran), self.asked_base

    def _train(self, recipe, trials):
        for trial in trials:
            self.ran.append((trial.method, trial.seed))
            self.seeds.append(trial.job.recipe.seed)
            made = [
                prediction.row()
                for split, questions in trial.questions.items()
                for prediction in student_predictions(
                    name=trial.method,
                    head="label",
                    split=split,
                    questions=questions,
                    answers=[HeadAnswer(text="", answer="1")] * len(questions),
                )
            ]
            write_table(pa.Table.from_pylist(made, schema=PREDICTION_SCHEMA), trial.predictions)
            written = {
                "method": trial.method,
                "made_from": trial.made_from,
                "code": describe_code(),
            }
            trial.result.write_text(json.dumps(FACTS | written))
            yield trial

    def _answer(self, recipe, work):
        self.asked_base = True
        return [
            JobAnswers(job=each, answers=(HeadAnswer(text=""),) * len(each.questions))
            for each in work
        ]


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    return Comparison(tmp_path, monkeypatch)


def change_rationale(comparison):
    """What a teacher that had failed answers in the next call, under the id that the row has
    had.
    """
    file = comparison.folder.rationales("train") / "rows" / "part-0.parquet"
    rows = pq.read_table(file, schema=RATIONALE_SET_SCHEMA).to_pylist()
    rows[3]["completions"][0]["rationale"] = "Count them all."
    pq.write_table(pa.Table.from_pylist(rows, schema=RATIONALE_SET_SCHEMA), file)


def change_control(comparison):
    """Another rationale by hand, under the same question and id."""
    lines = comparison.control.read_text().splitlines()
    comparison.control.write_text(
        "\n".join([json.dumps(json.loads(lines[0]) | {"rationale": "Count them all."}), *lines[1:]])
    )


def change_test(comparison):
    write_questions(comparison.test, generate(6, seed=8))


def change_validation(comparison):
    write_questions(comparison.validation, generate(6, seed=8))


EVERY = [("control", 0), ("control", 1), ("dss", 0), ("dss", 1)]


@pytest.mark.parametrize(
    ("change", "again", "base"),
    [
        (change_rationale, EVERY[2:], False),
        (change_control, EVERY[:2], False),
        (change_test, EVERY, True),
        (change_validation, EVERY, False),
    ],
)
def test_a_trial_does_not_outlive_what_it_read(comparison, caplog, change, again, base):
    """Guards a table that mixes trials of different rationales, or answers to questions that the
    test file no longer holds.
    """
    assert comparison.call()[1:] == (EVERY, True)
    assert comparison.call()[1:] == ([], False), "finished, and nothing has changed"
    assert "run again" not in caplog.text
    change(comparison)
    results, ran, asked_base = comparison.call()
    assert (ran, asked_base) == (again, base)
    assert (
        f"{len(again)} of 4 trials were made from other rationales or questions than there are now"
        in caplog.text
    )
    assert all(mean["questions"] == 6 for mean in results["measured"][0]["means"].values())
    assert comparison.call()[1:] == ([], False)


# --- one method, several names ---


def test_every_name_of_a_method_has_seeds_of_its_own(comparison):
    """Guards a planted null that cannot fail: two aliases of one method must not be the same runs,
    nor those of the method itself.
    """
    names = ("dss", "a=dss", "b=dss")
    comparison.call(names)
    assert len(set(comparison.seeds)) == len(comparison.ran) == 6
    told = {
        method.name: method.shift
        for method in read_methods(comparison.file, [], [*reversed(names), "finetune"])
    }
    assert told == {
        "dss": 0,
        "finetune": 0,
        "a": 36388604074,
        "b": 89219249477,
    }, "in every process, whatever else is compared"


def test_an_alias_and_a_variant_of_one_name_are_no_other_trials(comparison):
    """`x=dss` and then the variant x have the same keys and other seeds: the second must not find
    the first's trials.
    """
    assert comparison.call(["x=dss"])[1] == comparison.call(["x"])[1] == [("x", 0), ("x", 1)]
    assert comparison.call(["x=dss"])[1] == comparison.call(["x"])[1] == []


# --- the budget and code of a trial ---


@pytest.mark.parametrize(("unit", "why"), [("epochs", True), ("steps", False)])
def test_budgets_that_differ_are_told(unit, why):
    """Guards "on the same budget" over methods that keep other questions where a round is an epoch
    over them.
    """
    files = dict.fromkeys(("home", "folder", "validation"), Path("nowhere"))
    job = TrainingJob(
        recipe=tiny_recipe(**{"train.round.unit": unit}), objective_name="dss", manifest={}, **files
    )
    costs = {name: {"steps": 280.0, "questions_seen": 4_480.0} for name in ("dss", "qcrd")}
    assert list(budget_notes(costs, {"dss": job})) == []
    (note,) = budget_notes(
        costs | {"control": {"steps": 300.0, "questions_seen": 4_800.0}}, {"dss": job}
    )
    assert note.endswith(
        ": dss, qcrd: 280 steps, 4,480 questions; control: 300 steps, 4,800 questions"
    )
    assert ("train.round.unit" in note) == why


def test_a_table_tells_its_budgets(comparison):
    """The note must reach the table: the control's trials say that they were trained longer."""
    comparison.call()
    for file in comparison.folder.root.glob("compare/all/control-*/*/trial.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"steps": 2}))
    assert (
        "the methods have not had the same budget: dss: 1 steps"
        in comparison.call()[0]["notes"][-1]
    )


def test_trials_of_other_code_are_noted(comparison):
    """Guards the call's commit over a table of trials that earlier commits, or other versions of a
    package, have made.
    """
    results, _, _ = comparison.call()
    assert results["notes"] and not any("code" in note for note in results["notes"])
    files = sorted(comparison.folder.root.glob("compare/all/dss-*/*/trial.json"))
    for file in files:
        trial = json.loads(file.read_text())
        code = trial["code"] | {
            "commit": "abc",
            "packages": trial["code"]["packages"] | {"torch": "1.0"},
        }
        file.write_text(json.dumps(trial | {"code": code}))
    results, ran, _ = comparison.call()
    assert (
        ran == []
        and results["notes"][-1]
        == "2 of 4 trials were made by other code than this call's: commit abc, torch 1.0"
    )


def test_a_trial_names_its_code(tmp_path, monkeypatch):
    """trial.json, as the actor writes it."""
    job = SimpleNamespace(folder=tmp_path / "trial")
    trial = Trial(method="dss", seed=0, job=job, questions={}, made_from={"train": "a"})
    monkeypatch.setattr(worker, "train_in_process", lambda job: None)
    monkeypatch.setattr(trials, "_measure", lambda trial: ([], {}))
    monkeypatch.setattr(trials, "_facts", lambda trial, predictions: {"made_from": trial.made_from})
    assert not trial.finished and TrialRunner(torch.get_num_threads()).run(trial).finished
    assert json.loads(trial.result.read_text())["code"] == describe_code()


def test_a_comparison_tells_by_which_head_it_chose(comparison):
    """`finetune` has one head, whatever the recipe says."""
    assert comparison.call(("finetune", "dss"))[0]["chosen_by"] == {
        "finetune": "label",
        "dss": "mean",
    }
