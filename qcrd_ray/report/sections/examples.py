"""Examples to read. Everything here was written by users and models, and is shown as text."""

from __future__ import annotations

from collections.abc import Sequence

from qcrd_ray.records import ScoredAs, ScoredRationale
from qcrd_ray.report.blocks import missing, pair, section, verdict
from qcrd_ray.report.facts.examples import Difference
from qcrd_ray.report.facts.measured import Answer
from qcrd_ray.report.markup import Markup, join, tag

_WHO = {
    ScoredAs.TEACHER_POSITIVE: "teacher, agrees with the vote",
    ScoredAs.TEACHER_MINORITY: "teacher, disagrees with the vote",
    ScoredAs.STUDENT: "an older student",
    ScoredAs.CORRUPTED: "the teacher, with a wrong step made",
    ScoredAs.EVOLVED: "the teacher, with other numbers put in",
}


def examples_section(
    scored: tuple[int, list[ScoredRationale], list[ScoredRationale]] | None,
    differing: tuple[str, str, list[Difference], list[Difference]] | None,
) -> Markup:
    """``differing``: two models, the questions that the first gets and the second does not, and the reverse; None: no baseline."""
    parts = []
    if scored is None:
        parts.append(missing("No single scores were kept, so there are no best and worst rationales to show."))
    else:
        round, best, worst = scored
        parts.append(
            pair(_ranked(f"Best scored rationales, round {round}", best), _ranked(f"Worst scored rationales, round {round}", worst))
        )
    if differing is None:
        parts.append(missing("No baseline has been measured beside the student, so there is nothing to hold against it."))
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
        "p", tag("span", f"s = {each.score:.3f}", class_="badge"), verdict(each.right), tag("span", _WHO[each.scored_as], class_="muted")
    )
    return tag("div", head, tag("p", each.question), tag("p", each.text, class_="said"), class_="card")


def _differing(title: str, found: Sequence[Difference], names: tuple[str, str]) -> Markup:
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


def _answer(who: str, answer: Answer) -> Markup:
    said = answer.text if answer.text is not None else answer.answer or ""
    return join(tag("p", verdict(answer.right), tag("span", who, class_="muted")), tag("p", said, class_="said"))
