"""The run folder: never overwritten silently, never half written, refused early when it cannot be
used.
"""

import json
import os

import pytest
from recipe_tiny import recipe

from qcrd_ray.errors import UserError
from qcrd_ray.recipe.file import flatten
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder, resolve
from qcrd_ray.runs.provenance import describe_call


def test_a_new_folder_holds_recipe_and_versions(tmp_path):
    folder = RunFolder.open(recipe(tmp_path / "a" / "b"))
    calls = json.loads(folder.versions.read_text())
    assert folder.recipe.exists()
    assert calls[0]["seed"] == 0 and calls[0]["packages"]["ray"]


def test_the_same_recipe_goes_on_and_each_call_is_kept(tmp_path):
    RunFolder.open(recipe(tmp_path / "run"))
    folder = RunFolder.open(recipe(tmp_path / "run"))
    assert len(json.loads(folder.versions.read_text())) == 2


def test_another_recipe_is_refused_and_the_changed_key_named(tmp_path):
    RunFolder.open(recipe(tmp_path / "run"))
    with pytest.raises(UserError, match=r"seed: 0 there, 7 now"):
        RunFolder.open(recipe(tmp_path / "run", seed=7))


@pytest.mark.parametrize(
    ("there", "change", "refused"),
    [
        ([], {"train": {"rounds": 3}}, False),
        (["rationales", "questions"], {"train": {"rounds": 3}, "objective": {"beta": 0}}, False),
        (["rationales"], {"sampling": {"k": 4}}, True),
        (["rationales"], {"vote": {"tie": "first"}}, True),
        (["rationales", "train"], {"train": {"rounds": 3}}, True),
        (["rationales", "compare"], {"train": {"rounds": 3}}, True),
    ],
)
def test_what_nothing_depends_on_yet_may_change(tmp_path, there, change, refused):
    """Bug guarded: whoever changed `train.rounds` after `qcrd generate` was sent to a new folder,
    without the rationales that were paid for.
    """
    RunFolder.open(recipe(tmp_path / "run"))
    for name in there:
        (tmp_path / "run" / name).mkdir()
    if refused:
        with pytest.raises(UserError, match="made by another recipe"):
            RunFolder.check(recipe(tmp_path / "run", **change))
    else:
        RunFolder.check(recipe(tmp_path / "run", **change))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train": {"rounds": 3}}, True),
        ({"vote": {"tie": "first"}}, True),
        ({"sampling": {"k": 4}}, False),
        ({"task": {"kind": "word_problems", "instruction": "Answer."}}, False),
    ],
)
def test_the_refusal_names_the_rationales_that_need_not_be_asked_again(tmp_path, change, named):
    RunFolder.open(recipe(tmp_path / "run"))
    for name in ("rationales", "train"):
        (tmp_path / "run" / name).mkdir()
    with pytest.raises(UserError) as error:
        RunFolder.check(recipe(tmp_path / "run", **change))
    assert (f"--rationales {tmp_path / 'run'}" in str(error.value)) == named


@pytest.mark.parametrize(
    "change",
    [
        {"ray": {"num_cpus": 3}},
        {"data": {**recipe("x").model_dump()["data"], "rationales": "/elsewhere"}},
        {"serve": {"port": 1234}},
        {"generation": {"attempts": 9}},
        {"train": {"workers": 3, "micro_batch_size": 2}},  # a node was lost
        {
            "evaluate": {"worker": {"resources": {"trainer": 0.001}}}
        },  # another cluster calls its groups otherwise
    ],
)
def test_what_only_moves_work_about_may_change(tmp_path, change):
    RunFolder.open(recipe(tmp_path / "run"))
    assert RunFolder.open(recipe(tmp_path / "run", **change)).root == tmp_path / "run"


def test_a_folder_of_something_else_is_not_taken_over(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is no run folder"):
        RunFolder.open(recipe(tmp_path))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["thesis.tex"]


def test_rationales_of_another_run_may_lie_there_already(tmp_path):
    """They are paid for, and depend on no student; what is asked of the teacher decides which of
    them are still right.
    """
    (tmp_path / "rationales" / "train" / "rows").mkdir(parents=True)
    assert RunFolder.open(recipe(tmp_path)).recipe.exists()


def test_a_file_in_the_way_is_an_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write in"):
        RunFolder.open(recipe(tmp_path / "file" / "run"))


@pytest.mark.skipif(
    not os.path.exists("/proc/version"), reason="needs /proc, which nobody can write in"
)
def test_an_unwritable_place_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot write in /proc"):
        RunFolder.check(recipe("/proc/qcrd/run"))


def test_check_makes_nothing(tmp_path):
    RunFolder.check(recipe(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_uri_is_no_folder_named_s3(monkeypatch, tmp_path):
    monkeypatch.setenv("QCRD_WORK", str(tmp_path))
    assert resolve("s3://bucket/run").parent == tmp_path


def test_a_relative_folder_is_refused_inside_a_submitted_job(monkeypatch):
    """Bug guarded: Ray deletes the job's working directory, and the results with it."""
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="absolute path"):
        resolve("runs/x")
    assert str(resolve("/data/runs/x")) == "/data/runs/x"


def test_secrets_of_the_environment_stay_out_of_versions(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in json.dumps(describe_call(0))


def test_a_password_on_the_command_line_stays_out_of_versions(monkeypatch):
    """Bug guarded: each call wrote its command line into the run folder as it was typed."""
    given = ["qcrd", "run", "r.yaml", "--set", "data.train.path=https://me:hunter2@host/a.csv?k=1"]
    monkeypatch.setattr("sys.argv", given)
    assert describe_call(0)["command"] == [*given[:-1], "data.train.path=https://host/a.csv"]


def test_write_text_leaves_no_temporary_file(tmp_path):
    write_text(tmp_path / "deep" / "a.json", "{}")
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_flatten_keeps_empty_sections():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}


def test_the_listing_shows_folders_with_their_size(tmp_path):
    folder = RunFolder.open(recipe(tmp_path / "run"))
    write_text(folder.rationales("train") / "manifest.json", "12345")
    assert ("rationales/train/", 5) in folder.listing()
