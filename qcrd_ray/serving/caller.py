"""Who waits for the texts of a question: hears them grow, ends them, and may have left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence


class Caller:
    """The listener of one question's texts; see :class:`qcrd_ray.inference.base.Listener`.

    It ends a text at the first of ``stops``, and all of them once it has ``left``: nothing is
    written for nobody. ``tell`` is called with a sample's number and each new piece of its text, in
    the thread that writes. A piece holds nothing of a stop.
    """

    def __init__(
        self, *, stops: Sequence[str] = (), tell: Callable[[int, str], None] | None = None
    ) -> None:
        self.left = False
        self._stops, self._tell = stops, tell
        self._told: Counter[int] = Counter()  # characters of each sample

    def hear(self, sample: int, text: Callable[[], str]) -> bool:
        """See :class:`qcrd_ray.inference.base.Listener`."""
        if self.left:
            return True
        if not self._stops and self._tell is None:
            return False
        so_far = text()
        kept = before_stop(so_far, self._stops)
        stopped = len(kept) < len(so_far)
        if self._tell is not None:
            if not stopped:
                kept = kept[: len(kept) - _beginning(kept, self._stops)]
            if piece := kept[self._told[sample] :]:
                self._told[sample] = len(kept)
                self._tell(sample, piece)
        return stopped

    def rest(self, sample: int, text: str) -> str:
        """What was not yet told of ``text``, the whole sample before its stop."""
        return text[self._told[sample] :]


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The part of ``text`` before the first of ``stops``; all of it where none occurs.

    The first is the one that is whole first, so that a text has one end, however it grows.
    """
    places = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(places)[1]] if places else text


def _beginning(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters of ``text`` may be the beginning of a stop."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(s.startswith(text[-n:]) for s in stops)), 0)
