"""What came of asking a split: counts that add up, settings, versions and speed, beside the rows that they count."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

from qcrd_ray.rationales.store import Store
from qcrd_ray.recipe import Recipe
from qcrd_ray.records import Outcome, Role
from qcrd_ray.run_folder import describe_call, write_text


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``rows`` were read and ended in ``outcomes``, which add up to it; ``completions`` of the teacher took ``roles`` in the votes.

    ``calls`` lists the runs that asked, each with the rows it asked, seconds of asking (teacher's start excluded), tokens and versions;
    a run that was killed is not among them. Tokens are 0 where the source does not count them. ``overlap`` holds, for each split that is
    measured on, the ids of its questions that occur in this one, and of how many (training questions only).
    """

    split: str
    rows: int
    outcomes: dict[str, int]
    completions: int
    roles: dict[str, int]
    tokens: int
    overlap: dict[str, dict]
    settings: dict
    calls: list[dict]


def summarise(
    recipe: Recipe, store: Store, *, split: str, rejected: int, asked: int, overlap: dict[str, dict], call: dict | None
) -> Manifest:
    """Count the finished rows, check that none is missing, and write the manifest.

    Args:
        rejected: rows that could not become questions.
        asked: questions that should have ended in `rows/`.
        overlap: see :class:`Manifest`.
        call: what this run did, None where it had nothing to ask.
    """
    outcomes = Counter({outcome.value: 0 for outcome in Outcome})
    roles = Counter({role.value: 0 for role in Role})
    tokens = 0
    for table in store.tables(["outcome", "completions.list.element.role", "completions.list.element.tokens"]):
        outcomes.update(table["outcome"].to_pylist())
        for completions in table["completions"].to_pylist():
            roles.update(completion["role"] for completion in completions)
            tokens += sum(completion["tokens"] for completion in completions)
    assert outcomes.total() == asked, f"{asked} questions were asked and {outcomes.total()} rows came out"
    outcomes[Outcome.REJECTED_INPUT.value] += rejected
    manifest = Manifest(
        split=split,
        rows=asked + rejected,
        outcomes=dict(outcomes),
        completions=roles.total(),
        roles=dict(roles),
        tokens=tokens,
        overlap=overlap,
        settings=_settings(recipe),
        calls=[*_earlier_calls(store), *([{**describe_call(recipe.seed), **call}] if call else [])],
    )
    write_text(store.manifest, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _settings(recipe: Recipe) -> dict:
    sections = {"task", "teacher", "sampling", "generation", "vote"}
    settings = recipe.model_dump(mode="json", include=sections)
    settings["teacher"].pop("env", None)  # may hold what is nobody's business
    return settings


def _earlier_calls(store: Store) -> list[dict]:
    return json.loads(store.manifest.read_text())["calls"] if store.manifest.exists() else []
