"""Time and tokens of a run by stage, the resolved recipe, versions and calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.credentials import without_credentials
from qcrd_ray.report.html import Markup, facts, join, missing, pair, section, table, tag
from qcrd_ray.report.rounds import Training
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.progress import format_duration
from qcrd_ray.runs.provenance import Call, command_text
from qcrd_ray.runs.results import JudgeTraining
from qcrd_ray.runs.storage import is_uri, redacted

_WORK = (
    "Work within the stages, over all calls that did it. A training's tokens are those that the"
    " student's steps read: inputs, labels, the rationales that were compared and those that were"
    " trained on"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEffort:
    """One piece of work.

    The tokens are those that the teacher read and wrote, or that the student's steps read; None
    where they were not counted.
    """

    stage: str
    part: str
    seconds: float
    tokens_in: int | None = None
    tokens_out: int | None = None


def stage_seconds(folder: RunFolder) -> dict[str, float]:
    """Wall-clock seconds of each stage of the last whole run; {} where there was none."""
    return json.loads(folder.seconds.read_text()) if folder.seconds.exists() else {}


def work(
    folder: RunFolder, trainings: list[Training], judges: JudgeTraining | None = None
) -> list[StageEffort]:
    """The work of asking by split, over all runs, and of each training by part, over its rounds.

    The last is that of the judges.
    """
    found = []
    for manifest in sorted(folder.root.glob("rationales/*/manifest.json")):
        calls = json.loads(manifest.read_text())["calls"]
        tokens = {name: sum(call[name] for call in calls) for name in ("tokens_in", "tokens_out")}
        found.append(
            StageEffort(
                stage="rationales",
                part=f"asking {manifest.parent.name}",
                seconds=sum(call["seconds"] for call in calls),
                **tokens,
            )
        )
    for training in trainings:
        parts: dict[str, float] = {}
        for row in training.rounds:
            for part, value in row["seconds"].items():
                parts[part] = parts.get(part, 0.0) + value
        read = sum(row["tokens"] for row in training.rounds)
        found += [
            StageEffort(
                stage=training.objective,
                part=part,
                seconds=value,
                tokens_in=read if part == "student" else None,
            )
            for part, value in parts.items()
        ]
    if judges and "seconds" in judges:
        part = "sampling the student, training"
        found.append(StageEffort(stage="judge", part=part, seconds=judges["seconds"]))
    return found


# --- How it is drawn ---


def effort_section(stages: dict[str, float], done: Sequence[StageEffort]) -> Markup:
    """The section on time and tokens."""
    whole = sum(stages.values())
    if stages:
        rows = [
            (name, format_duration(seconds), f"{100 * seconds / whole:.0f} %")
            for name, seconds in stages.items()
        ]
        wall = table(
            ("stage", "time", "share"),
            [*rows, ("all", format_duration(whole), "100 %")],
            caption="Wall-clock time of the last whole run",
        )
    else:
        wall = missing("No whole run has finished in this folder, so there is no time by stage.")
    cells = [
        (
            each.stage,
            each.part,
            format_duration(each.seconds),
            _count(each.tokens_in),
            _count(each.tokens_out),
            _rate(each),
        )
        for each in done
    ]
    head = ("stage", "work", "time", "tokens in", "tokens out", "tokens/s")
    parts = table(head, cells, caption=_WORK, words=2) if done else None
    return section("effort", "Time and tokens", pair(wall, parts))


def provenance_section(recipe: Recipe, calls: Sequence[Call]) -> Markup:
    """The versions and the recipe, without what may be secret.

    Left out are the environment of the teacher's replicas and a store's credentials.
    """
    tree = recipe.model_dump(mode="json", by_alias=True)
    tree["run"] = redacted(recipe.run) if is_uri(recipe.run) else recipe.run
    if tree["teacher"].get("env"):
        tree["teacher"]["env"] = dict.fromkeys(tree["teacher"]["env"], "(not shown)")
    text = without_credentials(
        yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
    )
    return section(
        "recipe",
        "Recipe and versions",
        _versions(calls[-1]) if calls else None,
        _calls(calls) if len(calls) > 1 else None,
        tag(
            "details",
            tag("summary", "The resolved recipe, defaults included"),
            tag("pre", text, tabindex=0),
        ),
    )


def _versions(call: Call) -> Markup:
    packages = ", ".join(f"{name} {version}" for name, version in call["packages"].items())
    return facts(
        [
            ("last call", join(tag("code", command_text(call)), f", {call['time']}")),
            ("commit", call["commit"] or "not a checkout"),
            ("qcrd_ray", f"{call['qcrd_ray']}, Python {call['python']}"),
            ("packages", packages),
            ("seed", str(call["seed"])),
        ]
    )


def _calls(calls: Sequence[Call]) -> Markup:
    rows = [(call["time"], command_text(call), (call["commit"] or "")[:12]) for call in calls]
    return tag(
        "details",
        tag("summary", f"All {len(calls)} calls that worked in this folder"),
        table(("time", "command", "commit"), rows, words=3),
    )


def _count(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens:,}"


def _rate(each: StageEffort) -> str:
    tokens = each.tokens_out if each.tokens_out is not None else each.tokens_in
    return f"{tokens / each.seconds:,.0f}" if tokens and each.seconds else ""
