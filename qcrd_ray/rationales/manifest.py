"""The manifest of a split's rationales: counts that add up, settings, versions, calls."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from qcrd_ray.data.records import Outcome, Role
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.manifests import AskedCounts, AskingCall, Overlap, RationaleManifest
from qcrd_ray.runs.provenance import describe_call


def write_manifest(
    recipe: Recipe,
    store: RationaleStore,
    counts: ShardCounts,
    *,
    split: str,
    rejected: int,
    overlap: dict[str, Overlap],
    asked: AskedCounts | None,
) -> RationaleManifest:
    """Check that no row is missing, and write the manifest.

    Args:
        counts: of all shards, settled after the last question was asked.
        rejected: rows that could not become questions.
        overlap: see :class:`~qcrd_ray.runs.manifests.RationaleManifest`.
        asked: what this run asked, None where it had nothing to ask.
    """
    assert counts.outcomes.total() == counts.requests, (
        f"{counts.requests} questions were asked and {counts.outcomes.total()} rows came out"
    )
    outcomes = counts.outcomes + Counter({Outcome.REJECTED_INPUT.value: rejected})
    calls = _earlier_calls(store)
    if asked is not None:
        calls.append({**describe_call(recipe.seed), **asked})
    manifest = RationaleManifest(
        split=split,
        rows=counts.requests + rejected,
        outcomes={outcome.value: outcomes[outcome.value] for outcome in Outcome},
        completions=counts.roles.total(),
        roles={role.value: counts.roles[role.value] for role in Role},
        tokens=counts.tokens,
        samples_asked=counts.samples_asked,
        samples_saved=recipe.sampling.k * counts.answered - counts.samples_asked,
        overlap=overlap,
        settings=_settings(recipe),
        calls=calls,
    )
    write_text(store.manifest, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _settings(recipe: Recipe) -> dict:
    sections = {"task", "teacher", "sampling", "generation", "vote"}
    settings = recipe.model_dump(mode="json", include=sections)
    settings["teacher"].pop("env", None)  # may hold secrets
    return settings


def _earlier_calls(store: RationaleStore) -> list[AskingCall]:
    return json.loads(store.manifest.read_text())["calls"] if store.manifest.exists() else []
