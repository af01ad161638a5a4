"""The page at `/`: one self-contained HTML file.

Its Content-Security-Policy allows nothing but what is in it.
"""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path

PAGE = Path(__file__).with_name("page") / "index.html"


def headers(page: str) -> dict[str, str]:
    """The headers that ``page`` is sent with.

    Inline scripts and styles are allowed by the hash of their text, so what a question or an answer
    might smuggle into the page is not run. The page may talk to its own origin only, cannot be
    framed, and sends no form. ``style="..."`` attributes are not allowed.
    """
    inline = _Inline()
    inline.feed(page)
    inline.close()
    policy = {
        "default-src": ["'none'"],
        "script-src": inline.hashes["script"] or ["'none'"],
        "style-src": inline.hashes["style"] or ["'none'"],
        "connect-src": ["'self'"],
        "img-src": ["data:"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    return {
        "Content-Security-Policy": "; ".join(
            f"{name} {' '.join(sources)}" for name, sources in policy.items()
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


class _Inline(HTMLParser):
    """Collects the hashes of a page's inline scripts and styles, as a policy names them."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes: dict[str, list[str]] = {"script": [], "style": []}
        self._inside: str | None = None
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in self.hashes:
            self._inside, self._text = tag, ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            digest = base64.b64encode(hashlib.sha256(self._text.encode()).digest()).decode()
            self.hashes[tag].append(f"'sha256-{digest}'")
            self._inside = None
