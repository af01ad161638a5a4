"""A listener of generated texts, for the tests of every engine."""

from __future__ import annotations


class Ear:
    """Keeps what it hears of each sample; ends one after ``last`` tokens."""

    def __init__(self, last: int | None = None) -> None:
        self.heard: dict[int, list[str]] = {}
        self.last = last

    def hear(self, sample, text):
        texts = self.heard.setdefault(sample, [])
        texts.append(text())
        return len(texts) == self.last
