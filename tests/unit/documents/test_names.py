"""The functions, tests and keys of the recipe that docs/ names in its text exist."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path

import markdown
import pytest
from pydantic import BaseModel

from qcrd_ray.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").glob("**/*.md"))
FILES = r"((?:qcrd_ray|tests|jobs|clusters|examples)/[\w./]+\.(?:py|yaml))(?:::?(\w+))?"

LINK = r"\[`(\w+)`\]\(\.\./([\w/]+\.py)\)"  # [`hold_vote`](../qcrd_ray/rationales/vote.py)


def sections_of(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from sections_of(part)


def keys_of(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """All dotted keys below a section, those of every kind of teacher."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for inner in sections_of(field.annotation):
            yield from keys_of(inner, f"{key}.")


KEYS = set(keys_of(Recipe))
SECTIONS = {key.partition(".")[0] for key in KEYS if "." in key}


def mistake(code: str) -> str:
    """Why this piece of inline code names nothing, or ""."""
    if match := re.fullmatch(FILES, code):
        path, name = ROOT / match[1], match[2]
        if not path.is_file():
            return f"{code}: there is no such file"
        defined = name is None or re.search(
            rf"(?:def|class) {name}\b|^{name}\b", path.read_text(), re.MULTILINE
        )
        return "" if defined else f"{code}: {match[1]} has no {name}"
    section = code.partition(".")[0]
    if re.fullmatch(r"[a-z_]+(?:\.[a-z_]+)+", code) and section in SECTIONS:
        is_file = code.endswith((".json", ".yaml", ".md"))  # task.json
        return "" if is_file or code in KEYS else f"{code}: no key of the recipe"
    return ""


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page):
    text = (ROOT / page).read_text()
    linked = [f"{path}:{name}" for name, path in re.findall(LINK, text)]
    codes = [*markdown.inline_code(text), *linked]
    mistakes = [why for code in codes if (why := mistake(code))]
    assert not mistakes, f"{page}: {mistakes}"


@pytest.mark.parametrize(
    "code",
    [
        "qcrd_ray/method/losses.py:no_such_term",
        "qcrd_ray/method/no_such_file.py",
        "tests/unit/documents/test_names.py::test_nothing",
        "train.no_such_key",
    ],
)
def test_a_name_that_is_gone_is_found(code):
    assert mistake(code)
