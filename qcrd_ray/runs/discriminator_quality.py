"""What a training's discriminator is worth on questions that it has not learnt from, in a sentence.

The summary, the report and the model card say it. The numbers are those of
:mod:`qcrd_ray.training.discriminator_probe`, which result.json keeps.
"""

from __future__ import annotations

from collections.abc import Mapping

LEAST_AUC = 0.55  # within a question; 0.5 is chance
LEAST_SPREAD = 0.02  # the standard deviation of the scores


def has_collapsed(fresh: Mapping[str, float]) -> bool:
    """Whether D scores everything alike, or ranks a question's samples hardly better than chance.

    ``fresh`` are the numbers of a probe. An AUC that could not be measured is no collapse.
    """
    return (
        fresh.get("fresh_score_spread", LEAST_SPREAD) < LEAST_SPREAD
        or fresh.get("auc_fresh_within_question", LEAST_AUC) < LEAST_AUC
    )


def quality_sentence(fresh: Mapping[str, float]) -> str:
    """What a probe found, with its numbers; "" where none was made."""
    if "fresh_score_spread" not in fresh:
        return ""
    questions = f"{fresh['fresh_questions']:.0f} held-out questions"
    auc = fresh.get("auc_fresh_within_question")
    ranking = (
        "no held-out question had both right and wrong samples to rank"
        if auc is None
        else f"on {questions} it ranks right samples of the student above wrong ones of the same"
        f" question with an AUC of {auc:.2f} (chance: 0.5)"
    )
    spread = f"its scores have a standard deviation of {fresh['fresh_score_spread']:.3f}"
    if has_collapsed(fresh):
        return (
            f"The discriminator has collapsed: {ranking}, and {spread}; below an AUC of"
            f" {LEAST_AUC:g} or a deviation of {LEAST_SPREAD:g} its scores say next to nothing"
            " about what is right."
        )
    return f"The discriminator: {ranking}, and {spread}."
