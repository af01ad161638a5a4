"""HTML and SVG: elements whose texts are always escaped, and the blocks that sections are built of.

tag("p", "2 < 3", class_="note")  ->  <p class="note">2 &lt; 3</p>
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from qcrd_ray.runs.results import head_name


class Markup(str):
    """Text that is HTML already. Only this module and the package's own constants make it."""

    __slots__ = ()


# never with a text in them here, or never with one in HTML
_VOID = ("meta", "path", "line", "rect", "circle")
Child = str | int | float | None


def tag(element: str, *children: Child, **attributes: object) -> Markup:
    """An element. Children that are not :class:`Markup` are escaped; None is left out everywhere.

    ``class_`` is written as class, ``stroke_width`` as stroke-width. Numbers are rounded to a
    hundredth: pixels need no more.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in _VOID and not children:
        return Markup(f"<{element}{written}>" if element == "meta" else f"<{element}{written}/>")
    return Markup(f"<{element}{written}>{join(*children)}</{element}>")


def join(*children: Child) -> Markup:
    """Children one after another, escaped as :func:`tag` escapes them."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(str(value))


# --- Blocks of a section ---


def section(id: str, title: str, *children: Child) -> Markup:
    """A section of the page under its heading; ``id`` is its anchor."""
    return tag("section", tag("h2", title, id=id), *children, aria_labelledby=id)


def missing(text: str) -> Markup:
    """A note that something is not there, and why."""
    return tag("p", text, class_="missing")


def figure(
    title: str,
    drawing: Markup,
    *,
    legend: Markup | None = None,
    note: str = "",
    numbers: Markup | None = None,
) -> Markup:
    """A chart under its title, with a note on how to read it, and its numbers in a folded table."""
    caption = tag("figcaption", tag("h3", title), tag("p", note) if note else None, legend)
    unfolded = tag("details", tag("summary", "The numbers"), numbers) if numbers else None
    return tag("figure", caption, drawing, unfolded)


def charts(*figures: Markup | None) -> Markup:
    """Figures in a grid."""
    return tag("div", *figures, class_="charts")


def pair(left: Markup, right: Markup | None) -> Markup:
    """Two things side by side where there is room."""
    return tag("div", left, right, class_="pair")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    caption: str | None = None,
    words: int = 1,
) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    Its first ``words`` columns hold words, the others numbers.
    """
    looks = [None if column < words else "number" for column in range(len(head))]
    top = tag(
        "tr",
        *(
            tag("th", name, scope="col", class_=look)
            for name, look in zip(head, looks, strict=True)
        ),
    )
    body = [
        tag("tr", *(tag("td", cell, class_=look) for cell, look in zip(row, looks, strict=True)))
        for row in rows
    ]
    whole = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", top),
        tag("tbody", *body),
    )
    return tag(
        "div",
        whole,
        class_="scroll",
        tabindex=0,
        role="group",
        aria_label=caption or ", ".join(head),
    )


def facts(pairs: Sequence[tuple[str, Child]]) -> Markup:
    """Names with their values, as a definition list."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in pairs))


def verdict(right: bool | None) -> Markup | None:
    """A badge that says right or wrong, in words and not in colour alone; None: not known."""
    if right is None:
        return None
    return tag(
        "span", "right" if right else "wrong", class_=f"badge {'right' if right else 'wrong'}"
    )


def model_name(name: str, head: str) -> str:
    """("student", "rationale") -> "student, by rationale"; a teacher's name says it already."""
    return name if name.startswith("teacher") else f"{name}, by {head_name(head)}"


def p_text(p: float) -> str:
    """A p-value with three decimals; never 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
