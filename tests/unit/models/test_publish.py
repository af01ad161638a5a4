"""`qcrd push`: what goes to the hub, and what never may."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.models import publish
from qcrd_ray.models.publish import check_exported, push_student

KEY = "hf_0123456789abcdef"


class Hub:
    """The hub's repositories by name, with whether each is private; and what was uploaded."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.uploads: list[dict] = []
        self.token = ""
        self.refusal = ""

    def __call__(self, *, token: str) -> Hub:
        self.token = token
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        if self.refusal:
            raise httpx.HTTPError(self.refusal)
        assert exist_ok
        self.private.setdefault(name, private)
        return f"https://hub.example/{name}"

    def model_info(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(private=self.private[name])

    def upload_folder(self, **given) -> None:
        self.uploads.append(given)


@pytest.fixture
def hub(monkeypatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(publish, "HfApi", hub)
    monkeypatch.setattr(publish, "away", lambda: "")
    monkeypatch.setenv("HF_TOKEN", KEY)
    return hub


@pytest.fixture
def student(exported_student, tmp_path) -> Path:
    return shutil.copytree(exported_student, tmp_path / "student")


@pytest.mark.parametrize("public", [False, True])
def test_a_student_is_private_unless_it_is_said_otherwise(hub, student, public):
    """Guards also a rule for paths that an exported student itself breaks."""
    assert push_student(student, "ann/small", public=public) == "https://hub.example/ann/small"
    assert hub.private == {"ann/small": not public}
    assert hub.token == KEY
    (upload,) = hub.uploads
    assert (upload["repo_id"], upload["folder_path"]) == ("ann/small", student)


@pytest.mark.parametrize("was_private", [False, True])
def test_a_repository_of_another_visibility_gets_nothing(hub, student, was_private):
    """Bug guarded: the hub keeps what a repository was, so a private upload would be public."""
    hub.private["ann/small"] = was_private
    with pytest.raises(UserError, match="private" if was_private else "public"):
        push_student(student, "ann/small", public=was_private)
    assert not hub.uploads


def test_no_token_but_the_environment_s_is_used(hub, student, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="HF_TOKEN holds no token"):
        push_student(student, "ann/small")
    assert not hub.private


@pytest.mark.parametrize("name", ["small", "ann/small/x", "ann/sm all", ""])
def test_a_name_that_is_none_is_refused(hub, student, name):
    with pytest.raises(UserError, match="no name of a repository"):
        push_student(student, name)


def test_a_refusal_of_the_hub_is_told_without_the_token(hub, student):
    hub.refusal = f"401: {KEY} may not write"
    with pytest.raises(UserError, match="401: <key> may not write") as told:
        push_student(student, "ann/small")
    assert KEY not in str(told.value)


def test_a_hub_out_of_reach_is_told_at_once(hub, student, monkeypatch):
    monkeypatch.setattr(publish, "away", lambda: "no answer")
    with pytest.raises(UserError, match="cannot be reached: no answer"):
        push_student(student, "ann/small")


@pytest.mark.parametrize("gone", ["task.json", "README.md", "model.safetensors"])
def test_what_is_no_exported_student_is_refused(student, gone):
    """Guards an upload of a checkpoint, or of a folder that merely has a config.json."""
    check_exported(student)
    (student / gone).unlink()
    with pytest.raises(UserError, match=r"no exported student"):
        check_exported(student)


@pytest.mark.parametrize(
    "text",
    ["from /home/ann/data.csv", "see ~/notes", "in ../other/x", "file://x/y", "C:\\Users\\ann\\x"],
)
@pytest.mark.parametrize("file", ["README.md", "task.json", "discriminator/config.json"])
def test_paths_of_this_machine_are_not_published(student, text, file):
    path = student / file
    if path.suffix == ".md":
        path.write_text(path.read_text() + f"\n{text}\n")
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"note": [{"x": text}]}))
    with pytest.raises(UserError, match="names a path of this machine"):
        check_exported(student)


@pytest.mark.parametrize(
    "text",
    [
        "https://host.example/a/b",
        "</think> and/or 3/4/5 km/h",
        "Q: x\nA:\nB",
        "arXiv 2405.13014",
        "...",
        "1 / 2 / 3",
    ],
)
def test_what_only_looks_like_a_path_is_published(student, text):
    """Guards prompts with addresses, fractions and marks."""
    facts = json.loads((student / "task.json").read_text())
    (student / "task.json").write_text(json.dumps(facts | {"instruction": text}))
    check_exported(student)
