"""Examples to read, chosen by score or drawn with the run's seed.

They are rationales at both ends of the discriminator's scale, and questions on which student and
baseline differ. A report made again shows the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from qcrd_ray.data.records import ScoredAs, ScoredRationale
from qcrd_ray.method.batching import keyed_random
from qcrd_ray.report.html import Markup, join, missing, pair, section, tag, verdict
from qcrd_ray.report.measured import GivenAnswer, Measured
from qcrd_ray.report.rounds import Training
from qcrd_ray.runs.folder import RunFolder

SHOWN = 5
_WHO = {
    ScoredAs.TEACHER_POSITIVE: "teacher, agrees with the vote",
    ScoredAs.TEACHER_MINORITY: "teacher, disagrees with the vote",
    ScoredAs.STUDENT: "an older student",
    ScoredAs.CORRUPTED: "the teacher, with a wrong step made",
    ScoredAs.EVOLVED: "the teacher, with other numbers put in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A question that one of two models got right, with both answers."""

    split: str
    question_id: str
    question: str
    first: GivenAnswer
    second: GivenAnswer


def extremes(training: Training) -> tuple[int, list[ScoredRationale], list[ScoredRationale]] | None:
    """(round from 1, best scored, worst scored) of the last round that kept scores; None: none did.

    No question occurs twice on one side.
    """
    if not training.scores:
        return None
    last = max(training.scores)
    ranked = sorted(
        training.scores[last], key=lambda scored: (-scored.score, scored.question_id, scored.text)
    )
    return last + 1, _first_of_each(ranked), _first_of_each(ranked[::-1])


def differences(
    folder: RunFolder,
    measured: Measured,
    *,
    first: tuple[str, str],
    second: tuple[str, str],
    seed: int,
) -> tuple[list[Disagreement], list[Disagreement]]:
    """Questions over all splits that only one of two models got right.

    Up to :data:`SHOWN` of them only ``first`` got right, and as many only ``second``.
    """
    only_first, only_second = [], []
    for split in measured.splits:
        one, other = (
            measured.answers.get((*first, split), {}),
            measured.answers.get((*second, split), {}),
        )
        texts = _questions(folder, split)
        for id in one.keys() & other.keys():
            if one[id].right != other[id].right:
                found = Disagreement(
                    split=split,
                    question_id=id,
                    question=texts.get(id, ""),
                    first=one[id],
                    second=other[id],
                )
                (only_first if one[id].right else only_second).append(found)
    return _draw(only_first, seed), _draw(only_second, seed)


def _first_of_each(ranked: list[ScoredRationale]) -> list[ScoredRationale]:
    """The first rationale of each question, of the first few questions."""
    kept: dict[str, ScoredRationale] = {}
    for scored in ranked:
        if len(kept) == SHOWN:
            break
        kept.setdefault(scored.question_id, scored)
    return list(kept.values())


def _draw(found: list[Disagreement], seed: int) -> list[Disagreement]:
    ordered = sorted(found, key=lambda each: (each.split, each.question_id))
    return keyed_random(seed, "report examples").sample(ordered, min(SHOWN, len(ordered)))


def _questions(folder: RunFolder, split: str) -> dict[str, str]:
    """Question texts by id, with the choices in a line of their own."""
    path = folder.questions(split)
    if not path.exists():
        return {}
    rows = pq.read_table(path, columns=["id", "question", "choices"]).to_pylist()
    return {
        row["id"]: "\n".join(
            [row["question"], *([" | ".join(row["choices"])] if row["choices"] else [])]
        )
        for row in rows
    }


# --- How they are drawn: written by users and models, so always shown as text ---


def examples_section(
    scored: tuple[int, list[ScoredRationale], list[ScoredRationale]] | None,
    differing: tuple[str, str, list[Disagreement], list[Disagreement]] | None,
) -> Markup:
    """The section.

    Args:
        scored: what :func:`extremes` found.
        differing: two models' names, the questions that only the first got right, and those that
            only the second did; None where there is no baseline.
    """
    parts = []
    if scored is None:
        parts.append(
            missing(
                "No single scores were kept, so there are no best and worst rationales to show."
            )
        )
    else:
        round, best, worst = scored
        parts.append(
            pair(
                _ranked(f"Best scored rationales, round {round}", best),
                _ranked(f"Worst scored rationales, round {round}", worst),
            )
        )
    if differing is None:
        parts.append(
            missing(
                "No baseline has been measured beside the student, so there is nothing to compare"
                " it with."
            )
        )
    else:
        first, second, only_first, only_second = differing
        left = _differing(f"{first}: right, {second}: wrong", only_first, (first, second))
        right = _differing(f"{second}: right, {first}: wrong", only_second, (first, second))
        parts.append(pair(left, right))
    return section("examples", "Examples", *parts)


def _ranked(title: str, scored: Sequence[ScoredRationale]) -> Markup:
    return tag("div", tag("h3", title), *(_scored(each) for each in scored))


def _scored(each: ScoredRationale) -> Markup:
    head = tag(
        "p",
        tag("span", f"s = {each.score:.3f}", class_="badge"),
        verdict(each.right),
        tag("span", _WHO[each.scored_as], class_="muted"),
    )
    return tag(
        "div", head, tag("p", each.question), tag("p", each.text, class_="said"), class_="card"
    )


def _differing(title: str, found: Sequence[Disagreement], names: tuple[str, str]) -> Markup:
    cards = [
        tag(
            "div",
            tag("p", each.question),
            tag("p", f"{each.split}; the answer is {each.first.gold}", class_="muted"),
            _answer(names[0], each.first),
            _answer(names[1], each.second),
            class_="card",
        )
        for each in found
    ]
    return tag("div", tag("h3", title), *(cards or [tag("p", "No such question.", class_="muted")]))


def _answer(who: str, answer: GivenAnswer) -> Markup:
    said = answer.text if answer.text is not None else answer.answer or ""
    return join(
        tag("p", verdict(answer.right), tag("span", who, class_="muted")),
        tag("p", said, class_="said"),
    )
