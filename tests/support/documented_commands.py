"""Whether a documented command can be typed as it stands: `check` raises where it cannot.

A program that is not known here is a mistake, so that each kind of command in the documents has
been thought of.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import typer
import yaml
from typer.exceptions import TyperException

from qcrd_ray.cli import app
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.recipe.file import load_recipe

ROOT = Path(__file__).resolve().parents[2]
MISTAKES = (AssertionError, UserError, TyperException, click.UsageError)
QCRD = typer.main.get_group(app)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get(
    "optional-dependencies", {}
)
# Programs of a shell, and of the tools that a user has installed: only files of this repository
# that their words name are looked up.
SHELL = {"cat", "cd", "chmod", "cp", "echo", "export", "head", "kill", "less", "ls", "mkdir"}
SHELL |= {"printf", "rm", "rsync", "scp", "seq", "sleep", "source", "ssh-keygen", "tail", "watch"}
TOOLS = {"docker", "jq", "kubectl", "mlflow", "pre-commit", "tensorboard"}
OUR_FOLDERS = ("clusters/", "docs/", "examples/", "jobs/", "qcrd_ray/", "tests/")
RECIPE = {
    "name": "x",
    "run": "runs/x",
    "task": {"kind": "arithmetic"},
    "data": {split: {"path": "x.jsonl"} for split in ("train", "validation", "test")},
    "teacher": {"source": "recording", "path": "x.jsonl"},
    "student": {"scratch": {}},
}
TEACHERS = (
    {"source": "serve", "model": "x"},
    {"source": "openai", "base_url": "http://x/v1", "model": "x"},
    {"source": "recording", "path": "x.jsonl"},
)
STUDENTS = ({"model": "x"}, {"scratch": {}})


def check(words: Sequence[str], scratch: Path) -> None:
    """Raise where a command cannot be typed as it stands."""
    program, arguments = words[0].removeprefix(".venv/bin/"), list(words[1:])
    for path in repository_files(arguments):
        assert (ROOT / path).exists(), f"{path}: there is no such file in this repository"
    if program == "qcrd":
        check_qcrd(arguments, scratch)
    elif program == "make":
        for word in arguments:
            assert "=" in word or word in TARGETS, f"{word}: the Makefile has no such target"
    elif program in ("python", "python3"):
        check_python(arguments, scratch)
    elif program in ("ray", "serve"):
        check_ray(program, arguments, scratch)
    elif program == "pip":
        check_pip(arguments)
    elif program == "git":
        assert arguments[:1] == ["clone"], "git: only `git clone` is known here"
    elif program == "curl":
        request_of(arguments)  # what it asks is for the test to send
    elif program in ("nohup", "time"):
        check(arguments, scratch)
    else:
        assert program in SHELL | TOOLS, f"{program}: unknown to {Path(__file__).name}"


def repository_files(words: Sequence[str]) -> Iterator[str]:
    """The words that name a file or a folder of this repository."""
    for word in words:
        path = word.partition("::")[0].removeprefix("./")
        if path.startswith(OUR_FOLDERS) and "placeholder" not in path:
            yield path


def check_qcrd(words: Sequence[str], scratch: Path) -> None:
    """The verb exists and takes these words; a recipe takes the overrides and the methods."""
    if words and words[0].startswith("-"):
        known = {option for each in QCRD.params for option in each.opts}
        assert words[0] in known, f"qcrd has no option {words[0]}"
        return
    assert words and words[0] in QCRD.commands, f"qcrd has no verb {words[:1]}"
    verb = QCRD.commands[words[0]]
    given = verb.make_context(words[0], list(words[1:])).params
    overrides = list(given.get("set_") or ())
    if words[0] == "serve":
        for override in overrides:
            key = override.partition("=")[0].partition(".")[0]
            assert key in ServingRecipe.model_fields, f"--set {key}: no key of the serve section"
    if not given.get("recipe"):
        return
    recipe = str(given["recipe"])
    if not recipe.startswith(OUR_FOLDERS):
        check_overrides(overrides, scratch)
    elif words[0] == "compare":
        from qcrd_ray.comparison import read_methods  # imports Ray and torch

        names = [name.strip() for name in given["methods"].split(",")]
        read_methods(ROOT / recipe, overrides, names, labels=given["labels"])
    else:
        load_recipe(ROOT / recipe, overrides)


def check_overrides(overrides: Sequence[str], scratch: Path) -> None:
    """A recipe with some kind of teacher and of student takes these overrides."""
    mistakes = []
    for teacher, student in itertools.product(TEACHERS, STUDENTS):
        file = scratch / "recipe.yaml"
        file.write_text(yaml.safe_dump(RECIPE | {"teacher": teacher, "student": student}))
        try:
            load_recipe(file, overrides)
            return
        except UserError as error:
            mistakes.append(str(error))
    raise UserError(mistakes[0])


def check_python(words: Sequence[str], scratch: Path) -> None:
    """A script of this repository with options that stand in it, or a known module."""
    if words[:2] == ["-m", "pip"]:
        return check_pip(words[2:])
    if words[:1] == ["-m"]:
        assert words[1] in ("venv", "pytest"), f"python -m {words[1]}: unknown here"
        return
    assert words and words[0].endswith(".py"), f"python {' '.join(words[:1])}: expected a script"
    if words[0] == "jobs/run.py":
        return check_qcrd(words[1:] if words[1] in QCRD.commands else ["run", *words[1:]], scratch)
    if not words[0].startswith(OUR_FOLDERS):  # the reader's own
        return
    text = (ROOT / words[0]).read_text()
    for word in words[1:]:
        option = word.partition("=")[0]
        assert not word.startswith("--") or option in text, f"{words[0]} does not know {option}"


def check_ray(program: str, words: Sequence[str], scratch: Path) -> None:
    """Ray's command line knows the command and its options; a job's own command is checked too."""
    from ray.scripts.scripts import cli as ray_cli
    from ray.serve.scripts import cli as serve_cli

    words, _, job = (list(words), None, []) if "--" not in words else split(words, "--")
    command: click.Command = ray_cli if program == "ray" else serve_cli
    while isinstance(command, click.Group):
        assert words and words[0] in command.commands, f"{program} has no command {words[:1]}"
        command = command.commands[words.pop(0)]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    for word in words:
        option = word.partition("=")[0]
        assert not word.startswith("-") or option in known, f"{program}: no option {option}"
    if (
        program == "ray"
        and command.name == "submit"
        and "entrypoint" in {each.name for each in command.params}
    ):
        assert job, "ray job submit: expected `-- python jobs/run.py ...`"
        check(job, scratch)


def split(words: Sequence[str], at: str) -> tuple[list[str], str, list[str]]:
    place = list(words).index(at)
    return list(words[:place]), at, list(words[place + 1 :])


def check_pip(words: Sequence[str]) -> None:
    """A requirements file, this folder with extras that it has, or other projects' packages."""
    assert words[:1] == ["install"], "pip: only `pip install` is known here"
    for word, before in zip(words[1:], words, strict=False):
        if before in ("-r", "--requirement", "-c"):
            assert (ROOT / word).is_file(), f"{word}: there is no such requirements file"
        assert not re.match(r"qcrd[-_]ray", word), f"{word}: this package is in no registry"
        if extras := re.fullmatch(r"\.\[([\w,-]+)\]", word):
            missing = set(extras[1].split(",")) - set(EXTRAS)
            assert not missing, f"{word}: pyproject.toml has no extra {sorted(missing)}"


def request_of(words: Sequence[str]) -> tuple[str, str, dict[str, str], str | None]:
    """(method, URL, headers, body) of a curl command."""
    parser = click.Command(
        "curl",
        params=[
            click.Option(["-X", "--request", "method"]),
            click.Option(["-H", "--header", "headers"], multiple=True),
            click.Option(["-d", "--data", "--json", "body"]),
            click.Option(["-N", "--no-buffer", "-n"], is_flag=True),
            click.Option(["-s", "--silent"], is_flag=True),
            click.Option(["-S", "--show-error"], is_flag=True),
            click.Option(["-f", "--fail"], is_flag=True),
            click.Option(["-i", "--include"], is_flag=True),
            click.Option(["-o", "--output"]),
            click.Option(["-K", "--config"]),
            click.Argument(["url"]),
        ],
    )
    given = parser.make_context("curl", list(words)).params
    headers = dict(re.split(r":\s*", header, maxsplit=1) for header in given["headers"])
    url = given["url"] if "://" in given["url"] else f"http://{given['url']}"
    return given["method"] or ("POST" if given["body"] else "GET"), url, headers, given["body"]
