"""HTML and SVG written so that nothing can be forgotten: every text that is not marked as HTML already is escaped.

tag("p", "2 < 3", class_="note")  ->  <p class="note">2 &lt; 3</p>
"""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is HTML already. Only this module and constants of ours make it."""

    __slots__ = ()


_VOID = ("meta", "path", "line", "rect", "circle")  # never with a text in them here, or never with one in HTML
Child = str | int | float | None


def tag(element: str, *children: Child, **attributes: object) -> Markup:
    """An element. Children that are no :class:`Markup` are escaped, None is left out; so is an attribute that is None.

    ``class_`` is written as class, ``stroke_width`` as stroke-width. Numbers are rounded to a hundredth: pixels need no more.
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items() if value is not None)
    if element in _VOID and not children:
        return Markup(f"<{element}{written}>" if element == "meta" else f"<{element}{written}/>")
    return Markup(f"<{element}{written}>{join(*children)}</{element}>")


def join(*children: Child) -> Markup:
    """Children one after another, escaped as :func:`tag` escapes them."""
    return Markup("".join(child if isinstance(child, Markup) else escape(str(child)) for child in children if child is not None))


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(str(value))
