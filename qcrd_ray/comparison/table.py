"""A comparison's results as Markdown: means, pairs and costs, with notes on how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qcrd_ray.comparison.statistics import SEEDS_FOR_P
from qcrd_ray.method.examples import Source
from qcrd_ray.runs.provenance import command_text
from qcrd_ray.runs.results import CEILING_NOTE, head_name, markdown_table

_AUCS = (
    "AUCs are the discriminator's in the last round. `AUC fresh`: the student's right samples"
    " against its wrong ones, question by question, on validation questions. The others are on"
    " rationales of training questions that it has just learnt from, and say nothing about how it"
    " scores others. `AUC teacher`: the teacher's rationales that agree with the vote against its"
    " minority; `AUC within question`: the same, question by question; `AUC student`: the student's"
    " samples that are right against those that are wrong.\n"
)


def markdown(results: dict[str, Any]) -> str:
    """All tables of a comparison's results."""
    call, parts = results["call"], ["# Comparison\n"]
    parts.append(
        f"{results['seeds']} seeds a method, {results['rationales']} training questions with"
        f" rationales, commit `{call['commit']}`. Each checkpoint was chosen on validation, the"
        " test splits were read once. Intervals (95 %) and `p` treat questions and seeds as random"
        " and a difference as paired; `Holm` is `p` corrected over all pairs of its table;"
        " `bootstrap` is the p-value of resampling questions and seeds."
        f"{_seeds_note(results['seeds'])}\n"
    )
    parts += _how_made(results)
    if notes := results.get("notes"):  # a table of an older version has none
        parts.append("\n".join(f"- {note}" for note in notes) + "\n")
    for measured in results["measured"]:
        parts.append(_heading(measured))
        if measured["head"] == "label":
            parts += _how_chosen(results)
        parts.append(_means(measured))
        if measured["pairs"]:
            parts.append(_pairs(measured))
    for votes in results.get("votes", []):
        parts += _votes(votes)
    parts.append("## Baselines: the teacher, and the base before training\n")
    parts.append(markdown_table(results["baselines"]) + "\n")
    parts.append("## Cost, rationales, discriminator (means over seeds)\n")
    if any(cost["discriminator"] for cost in results["cost"].values()):
        parts.append(_AUCS)
    parts.append(_cost(results["cost"]))
    if any(cost.get("judges") for cost in results["cost"].values()):
        parts.append("## Judges (means over seeds)\n")
        parts.append(_JUDGES)
        parts.append(_judges(results["cost"]))
    if contrasting := {
        name: cost for name, cost in results["cost"].items() if "negative_nll" in cost["student"]
    }:
        parts.append("## Negatives in the last round (means over seeds)\n")
        parts.append(_negatives(contrasting))
    return "\n".join(parts)


_JUDGES = (
    "`AUC within question`: the chance that a right sample scores above a wrong one of the same"
    " question, a mean over questions with both; 0.5 is a coin. `spread`: the standard deviation of"
    " the scores. `calibration error`: how far the votes' confidences lie from the shares that are"
    " right. `trained on`: the judges' own questions, each read by a judge that was trained on the"
    " others.\n"
)

# --- Captions. Results of an older version can lack a key: what they do not say is left out ---


def _how_made(results: Mapping[str, Any]) -> list[str]:
    """The command, and which labels the methods were trained on."""
    parts = []
    if "command" in results["call"]:
        parts.append(f"```bash\n{command_text(results['call'])}\n```\n")
    if methods := results.get("methods"):
        parts.append(
            "Labels (`objective.labels`, `--labels`):"
            f" {_grouped({name: each['objective']['labels'] for name, each in methods.items()})}.\n"
        )
    return parts


def _seeds_note(seeds: int) -> str:
    """What few seeds leave of the p-values."""
    if seeds < SEEDS_FOR_P:
        return f" Fewer than {SEEDS_FOR_P} seeds have no p-values: a test would not keep its level."
    if seeds == SEEDS_FOR_P:
        return f" With {seeds} seeds a p-value keeps its level only roughly: read it as a hint."
    return ""


def _heading(measured: Mapping[str, Any]) -> str:
    """Which split and head a table is of, and what its numbers are means of."""
    size = next(iter(measured["means"].values()))  # one for all methods
    return (
        f"## {measured['split']}, {measured['head']} head: {size['questions']:,} questions,"
        f" {size['seeds']} seeds\n"
    )


def _how_chosen(results: Mapping[str, Any]) -> list[str]:
    """By which head the checkpoints were chosen, which may not be the table's head."""
    chosen = results.get("chosen_by")
    return (
        [f"Checkpoints were chosen (`train.validate.choose_by`) by: {_grouped(chosen)}.\n"]
        if chosen
        else []
    )


def _grouped(values: Mapping[str, str]) -> str:
    """{"a": "x", "b": "x", "c": "y"} -> "x (a, b), y (c)"; one value for all needs no names."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return ", ".join(
        value if len(names) == 1 else f"{value} ({', '.join(several)})"
        for value, several in names.items()
    )


# --- Tables ---


def _means(measured: dict[str, Any]) -> str:
    rows = [
        (
            name,
            _percent(mean["mean"]),
            f"{100 * mean['sd']:.1f}",
            f"{_percent(mean['low'])} - {_percent(mean['high'])}",
        )
        for name, mean in measured["means"].items()
    ]
    return _grid(("method", "accuracy, %", "sd over seeds", "95 %"), rows)


def _pairs(measured: Mapping[str, Any]) -> str:
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
    return _grid(
        ("pair", "points", "95 %", "p", "Holm", "bootstrap", "questions better / worse"), rows
    )


def _votes(votes: Mapping[str, Any]) -> list[str]:
    """What votes of samples reach, at what cost, and the tests of the claims about them."""
    size = next(iter(votes["means"].values()))
    rows = [
        (
            method,
            head_name(row),
            _percent(mean["mean"]),
            f"{100 * mean['sd']:.1f}",
            f"{_percent(mean['low'])} - {_percent(mean['high'])}",
            f"{mean['tokens']:.0f}",
            f"{mean['milliseconds']:.1f}",
        )
        for name, mean in votes["means"].items()
        for method, _, row in [name.partition("/")]
    ]
    head = ("method", "answers by", "accuracy, %", "sd over seeds", "95 %", "tokens", "ms")
    parts = [
        f"## {votes['split']}, votes of samples: {size['questions']:,} questions,"
        f" {size['seeds']} seeds\n",
        "`rationale` is the greedy answer. Tokens are generated ones of a question, over all its"
        f" samples; milliseconds are a question's share of its batch. {CEILING_NOTE}.\n",
        _grid(head, rows, texts=2),
    ]
    if votes["pairs"]:
        if votes["registered"]:
            parts.append("Registered claims (`compare.pairs`), Holm's correction over these:\n")
        parts.append(_pairs(votes))
    return parts


def _judges(costs: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            method,
            split,
            judge,
            *(
                _number(quality.get(key))
                for key in ("auc_within_question", "spread", "calibration_error")
            ),
        )
        for method, cost in costs.items()
        for split, judges in cost.get("judges", {}).items()
        for judge, quality in judges.items()
    ]
    head = ("method", "questions", "judge", "AUC within question", "spread", "calibration error")
    return _grid(head, rows, texts=3)


def _cost(costs: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, cost in costs.items():
        quality = cost["rationales"].get("test", {})
        aucs = cost["discriminator"]
        rows.append(
            (
                name,
                f"{cost['questions_seen']:,.0f}",
                f"{cost['tokens']:,.0f}",
                f"{cost['seconds']:.0f}",
                *(
                    _number(quality.get(key))
                    for key in ("parsable", "steps_right", "agreement", "repetition")
                ),
                f"{quality['tokens']:.1f}" if "tokens" in quality else "",
                *(
                    _number(aucs.get(key))
                    for key in (
                        "auc_fresh_within_question",
                        "auc_teacher",
                        "auc_teacher_within_question",
                        "auc_student",
                    )
                ),
            )
        )
    head = (
        "method",
        "questions seen",
        "tokens",
        "seconds",
        "parsable",
        "steps right",
        "heads agree",
        "repetition",
        "rationale tokens",
    )
    aucs = ("AUC fresh", "AUC teacher", "AUC within question", "AUC student")
    return _grid((*head, *aucs), rows)


def _negatives(costs: dict[str, dict[str, Any]]) -> str:
    """The table of negatives.

    It shows how likely they are, how many still have a gradient, where they come from, and how many
    of them are right.
    """
    columns = {
        "nats a token, positives": "positive_nll",
        "negatives": "negative_nll",
        "active": "active_fraction",
        **{f"from {source}": f"negative_from_{source}" for source in Source},
    }
    rows = [
        (
            name,
            *(_number(cost["student"].get(key)) for key in columns.values()),
            _number(cost["negatives"].get("right_share")),
        )
        for name, cost in costs.items()
    ]
    return _grid(("method", *columns, "right among the student's"), rows)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A table whose first ``texts`` columns are texts, and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    if value < 0.0001:
        return "< 0.0001"  # and never 0
    return f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
