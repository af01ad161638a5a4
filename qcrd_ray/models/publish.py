"""An exported student to the Hugging Face hub: private unless it is said otherwise.

What is uploaded can be read by others, so a folder that tells of this machine is refused. No code
of the folder's is run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from qcrd_ray.data.hub import away
from qcrd_ray.errors import UserError
from qcrd_ray.models.student_folder import TASK_FILE
from qcrd_ray.runs.secrets import without_key

TOKEN = "HF_TOKEN"
_NEEDED = ("README.md", "config.json", "generation_config.json")
_WEIGHTS = "model*.safetensors"
# files in words, wherever they lie in the folder; a tokenizer's vocabulary may hold anything
_READ = ("README.md", TASK_FILE, "config.json", "tokenizer_config.json", "recipe.yaml")
_LOCAL = re.compile(
    r"(?<![\w./:<])(?:/[\w.+@-]+){2,}"  # /home/ann/data, and no https://, 3/4 or </think>
    r"|(?<![\w./])(?:~|\.{1,2})/\w[\w.+@/-]*"
    r"|\bfile://\S+|\b[A-Z]:\\Users\\[\w.\\-]+"
)


def push_student(student: Path, repository: str, *, public: bool = False) -> str:
    """Upload an exported student to ``repository`` (owner/name), and return its address.

    The repository is made if there is none. The token is that of the environment ($HF_TOKEN).

    Raises:
        UserError: the folder is no exported student or names paths of this machine, the name is
            none, there is no token, the repository is there and as visible as was not asked for, or
            the hub refuses or does not answer.
    """
    check_exported(student)
    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError("it must be owner/name")
    except HFValidationError as error:
        raise UserError(f"{repository}: no name of a repository on the hub: {error}") from error
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(
            f"the variable {TOKEN} holds no token; set it to one that may write to {repository}"
            " (https://huggingface.co/settings/tokens). A token that is stored by a login is not"
            " used"
        )
    if reason := away():
        raise UserError(f"the hub cannot be reached: {reason}")
    try:
        return _upload(HfApi(token=token), student, repository, public=public)
    except (httpx.HTTPError, OSError) as error:
        said = without_key(str(error).strip(), token) or type(error).__name__
        raise UserError(f"{repository}: the hub did not take it: {said}") from None


def check_exported(student: Path) -> None:
    """Raise UserError where ``student`` is no exported student, or names paths of this machine."""
    facts = _facts(student / TASK_FILE)
    whole = all((student / name).is_file() for name in _NEEDED) and any(student.glob(_WEIGHTS))
    if "exported_from" not in facts or not whole:
        raise UserError(
            f"{student} is no exported student, which holds {', '.join(_NEEDED)}, {TASK_FILE} and"
            f" {_WEIGHTS}; give the student/ folder of a finished run"
        )
    for file in sorted(file for name in _READ for file in student.rglob(name)):
        for text in _texts(file):
            if found := _LOCAL.search(text):
                raise UserError(
                    f"{file} names a path of this machine, {found[0]}, which would be uploaded:"
                    " take it out of the recipe (name, task, data), and export again with `qcrd"
                    " evaluate`"
                )


def _upload(api: HfApi, student: Path, repository: str, *, public: bool) -> str:
    address = api.create_repo(repository, private=not public, exist_ok=True)
    # of one that was there the hub keeps what it was
    if api.model_info(repository).private == public:
        was, wanted = ("private", "public") if public else ("public", "private")
        mend = "leave --public out" if public else "say --public"
        raise UserError(
            f"{repository} is there, and is {was}: name another, {mend}, or make it {wanted} in its"
            " settings"
        )
    api.upload_folder(
        repo_id=repository,
        folder_path=student,
        commit_message="Upload a student of qcrd_ray",
        ignore_patterns=[".*"],
    )
    return str(address)


def _facts(file: Path) -> dict[str, Any]:
    """The content of task.json; {} where there is none."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _texts(file: Path) -> Iterator[str]:
    """The texts that a file holds: all of it, or each of the texts in its JSON."""
    content = file.read_text(encoding="utf-8")
    if file.suffix != ".json":
        yield content
        return
    left = [json.loads(content)]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            left += each
