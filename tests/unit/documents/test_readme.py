"""The README's commands and keys exist: a newcomer types them as they stand."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from qcrd_ray.cli import app
from qcrd_ray.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = "\n".join(block.replace("\\\n", " ") for kind, block in BLOCKS if kind == "bash")
COMMANDS = [line.split(" #")[0].strip() for line in SHELL.splitlines() if line.strip()]
VERBS = {
    name: {option for each in verb.params for option in each.opts}
    for name, verb in typer.main.get_command(app).commands.items()
}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


@pytest.mark.parametrize("command", [c for c in COMMANDS if "qcrd " in c])
def test_verbs_and_options_exist(command):
    words = shlex.split(command)
    assert words[0] == ".venv/bin/qcrd" and words[1] in VERBS, command
    assert {word for word in words if word.startswith("--")} <= VERBS[words[1]], command
    assert CliRunner().invoke(app, [words[1], "--help"]).exit_code == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if "jobs/" in c])
def test_job_scripts_and_recipes_exist(command):
    for path in re.findall(r"jobs/\S+\.(?:py|yaml)", command):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(
    "text",
    [document for kind, block in BLOCKS if kind == "yaml" for document in block.split("\n---\n")],
)
def test_recipe_fragments_use_keys_that_exist(text):
    base = {
        "name": "x",
        "run": "runs/x",
        "task": {"kind": "arithmetic"},
        "data": {split: {"path": "x.jsonl"} for split in ("train", "validation", "test")},
        "teacher": {"source": "recording", "path": "x.jsonl"},
        "student": {"scratch": {}},
    }
    Recipe.model_validate(base | yaml.safe_load(text))


def test_every_verb_is_in_the_readme():
    assert not [verb for verb in VERBS if f"qcrd {verb}" not in README]


def test_no_placeholder_is_left():
    """Bug guarded: a README that promises a table and shows none."""
    assert not re.findall(r"<!--.*?-->", README)
