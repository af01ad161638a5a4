"""What a student's judged vote is worth beside its greedy answer, and what its judge is worth.

The summary, the report and the model card say it, from evaluation/results.json.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qcrd_ray.method.ranking import JudgeQuality
from qcrd_ray.recipe.judge import EvidenceName
from qcrd_ray.runs.discriminator_quality import LEAST_AUC, LEAST_SPREAD
from qcrd_ray.runs.results import ResultRow, Results, cost_text

# what a judge reads of a sample, in words
EVIDENCE: dict[EvidenceName, str] = {
    "student": "how likely the student finds it",
    "base": "how likely the student's start finds it",
    "label": "how likely the label head finds its answer",
    "steps": "whether its arithmetic steps hold (a calculator)",
    "teacher": "how likely the teacher finds it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedVote:
    """The vote that the student's own judge weighs, on one split, beside its greedy rationale."""

    vote: ResultRow
    greedy: ResultRow
    quality: JudgeQuality

    @property
    def split(self) -> str:
        """The questions that were asked."""
        return self.vote["split"]


def judged_votes(results: Results) -> list[JudgedVote]:
    """The student's judged votes, a split each; [] where none was measured."""
    rows = {(row["split"], row["head"]): row for row in results["rows"] if row["name"] == "student"}
    qualities = results.get("judges", {}).get("student", {})
    return [
        JudgedVote(vote=row, greedy=rows[split, "rationale"], quality=qualities[split]["judge"])
        for (split, head), row in rows.items()
        if re.fullmatch(r"judged vote of \d+", head)
    ]


def is_no_judge(quality: JudgeQuality) -> bool:
    """Whether a judge scores everything alike, or ranks a question's samples like a coin.

    An AUC that could not be measured is no failure.
    """
    auc = quality["auc_within_question"]
    return quality["spread"] < LEAST_SPREAD or (auc is not None and auc < LEAST_AUC)


def vote_sentence(each: JudgedVote) -> str:
    """What the judged vote reached, at what cost, beside the greedy answer."""
    return (
        f"{each.split}: the {each.vote['head']} is right on {_reached(each.vote)}; the greedy"
        f" rationale on {_reached(each.greedy)}"
    )


def judge_sentence(quality: JudgeQuality, *, split: str) -> str:
    """How a judge ranks samples that it has not seen; a judge that has collapsed is called so."""
    auc, spread = quality["auc_within_question"], quality["spread"]
    ranking = (
        "no question had both right and wrong samples to rank"
        if auc is None
        else f"a right sample scores above a wrong one of the same question with an AUC of"
        f" {auc:.2f} (chance: 0.5), over {quality['two_sided']} questions with both"
    )
    deviation = f"the scores have a standard deviation of {spread:.3f}"
    if is_no_judge(quality):
        return (
            f"The judge does not judge on {split}: {ranking}, and {deviation}; its weights"
            " say next to nothing about what is right."
        )
    return f"The judge on {split}: {ranking}, and {deviation}."


def _reached(row: ResultRow) -> str:
    costs = [
        f"{text} {unit}"
        for unit, value in (("tokens", row.get("tokens")), ("ms", row.get("milliseconds")))
        if (text := cost_text(value))
    ]
    return f"{100 * row['accuracy']:.1f} %" + (
        f" at {' and '.join(costs)} a question" if costs else ""
    )
