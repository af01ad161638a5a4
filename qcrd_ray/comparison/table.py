"""The comparison as Markdown: means, pairs, cost, and what the numbers need to be read with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qcrd_ray.comparison.captions import JUDGED, heading, how_chosen, how_made
from qcrd_ray.method.examples import Source
from qcrd_ray.result_table import markdown_table


def markdown(results: dict[str, Any]) -> str:
    """All tables of a comparison's results."""
    call, parts = results["call"], ["# Comparison\n"]
    parts.append(
        f"{results['seeds']} seeds a method, {results['rationales']} training questions with rationales, commit `{call['commit']}`. Each "
        "checkpoint was chosen on validation, the test splits were read once. Intervals (95 %) and `p` take questions and seeds for random "
        "and a difference for paired; `Holm` is `p` corrected over all pairs of its table; `bootstrap` is the p-value of resampling "
        "questions and seeds.\n"
    )
    parts += how_made(results)
    if notes := results.get("notes"):  # a table of an older version has none
        parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    for measured in results["measured"]:
        parts.append(heading(measured))
        if measured["head"] == "label":
            parts += how_chosen(results)
        parts.append(_means(measured))
        if measured["pairs"]:
            parts.append(_pairs(measured))
    parts.append("## Beside them: the teacher, and the base before training\n")
    parts.append(markdown_table({"rows": results["beside"]}) + "\n")
    parts.append("## Cost, rationales, discriminator (means over seeds)\n")
    if any(cost["discriminator"] for cost in results["cost"].values()):
        parts.append(JUDGED)
    parts.append(_cost(results["cost"]))
    if contrasting := {name: cost for name, cost in results["cost"].items() if "negative_nll" in cost["student"]}:
        parts.append("## Negatives in the last round (means over seeds)\n")
        parts.append(_negatives(contrasting))
    return "\n".join(parts)


def _means(measured: dict[str, Any]) -> str:
    rows = [
        (name, _percent(mean["mean"]), f"{100 * mean['sd']:.1f}", f"{_percent(mean['low'])} - {_percent(mean['high'])}")
        for name, mean in measured["means"].items()
    ]
    return _grid(("method", "accuracy, %", "sd over seeds", "95 %"), rows)


def _pairs(measured: dict[str, Any]) -> str:
    rows = [
        (
            f"{pair['second']} - {pair['first']}",
            f"{100 * pair['difference']:+.2f}",
            f"{100 * pair['low']:+.2f} to {100 * pair['high']:+.2f}",
            _p(pair["p"]),
            _p(pair["holm"]),
            _p(pair["bootstrap"]),
            f"{pair['better']} / {pair['worse']}",
        )
        for pair in measured["pairs"]
    ]
    return _grid(("pair", "points", "95 %", "p", "Holm", "bootstrap", "questions better / worse"), rows)


def _cost(costs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, cost in costs.items():
        quality = cost["rationales"].get("test", {})
        judged = cost["discriminator"]
        rows.append(
            (
                name,
                f"{cost['questions_seen']:,.0f}",
                f"{cost['tokens']:,.0f}",
                f"{cost['seconds']:.0f}",
                *(_number(quality.get(key)) for key in ("parsable", "steps_right", "agreement", "repetition")),
                f"{quality['tokens']:.1f}" if "tokens" in quality else "",
                *(_number(judged.get(key)) for key in ("auc_teacher", "auc_teacher_within_question", "auc_student")),
            )
        )
    head = ("method", "questions seen", "tokens", "seconds", "parsable", "steps right", "heads agree", "repetition", "rationale tokens")
    return _grid((*head, "AUC teacher", "AUC within question", "AUC student"), rows)


def _negatives(costs: dict[str, dict[str, Any]]) -> str:
    """What the negative term does: how likely its rationales are, how many still have a gradient, whose they are, how many are right."""
    columns = {
        "nats a token, positives": "positive_nll",
        "negatives": "negative_nll",
        "active": "active_fraction",
        **{f"from {source}": f"negative_from_{source}" for source in Source},
    }
    rows = [
        (name, *(_number(cost["student"].get(key)) for key in columns.values()), _number(cost["negatives"].get("right_share")))
        for name, cost in costs.items()
    ]
    return _grid(("method", *columns, "right among the student's"), rows)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _p(value: float) -> str:
    if value < 0.0001:
        return "< 0.0001"  # and never 0
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
