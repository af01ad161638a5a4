"""Models by name: the shipped ones, folders in Hugging Face form, hub ids. Nothing is loaded.

Stages that only name models need neither torch nor transformers, which take seconds to import.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import qcrd_ray
from qcrd_ray.errors import UserError

# files that decide what a model generates; the others in its folder are documents and limits
_DECISIVE_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja", ".py")
_NOT_DECISIVE = ("task.json", "generation_config.json")


def demo_model(name: Literal["teacher", "student"]) -> Path:
    """The folder of a shipped model.

    ``teacher`` is a decoder-only language model, ``student`` an encoder-decoder to train further.
    """
    return Path(qcrd_ray.__file__).parent / "demo" / name


def resolve(model: str | Path) -> str:
    """The name of a student as transformers takes it: an absolute folder, or the hub id as it is.

    `demo` is the shipped student. Raises UserError where there is no such folder, or no model in
    it.
    """
    name = str(model)
    if name == "demo":
        return str(demo_model("student"))
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} is not a model folder: it has no config.json. Give the folder that"
                " `save_pretrained` wrote."
            )
        return str(folder.resolve())
    if isinstance(model, Path) or looks_like_path(name):
        raise UserError(
            f"model {name!r}: there is no such folder. Give a Hugging Face model folder, a hub id"
            " (owner/name), or `demo`."
        )
    return name


def resolve_teacher(model: str) -> str:
    """The name of a teacher as vLLM takes it: as :func:`resolve`, and `demo` is the shipped one.

    Raises:
        UserError: it looks like a folder, and there is none.
    """
    if model == "demo":
        return str(demo_model("teacher"))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if looks_like_path(model):
        raise UserError(
            f"teacher.model: there is no folder {folder}; expected a model folder, a hub id"
            " (owner/name) or `demo`"
        )
    return model


def looks_like_path(name: str) -> bool:
    """Whether a model's name can be no hub id, so that a mistyped path is not sought on the hub."""
    return (
        not name
        or name.startswith((".", "~", os.sep))
        or name.count("/") > 1
        or Path(name).expanduser().is_file()
    )


def fingerprint(folder: Path) -> str:
    """A hash of what decides a model's texts: its config, tokenizer, weights and own code."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in _DECISIVE_SUFFIXES and file.name not in _NOT_DECISIVE:
            with file.open("rb") as content:
                digest.update(
                    f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode()
                )
    return digest.hexdigest()
