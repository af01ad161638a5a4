"""What a caller hears of a growing text, and when it ends it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qcrd_ray.serving.caller import Caller, before_stop


def told(text: str, stops: list[str]) -> tuple[list[str], str]:
    """The pieces that a caller is told of ``text``, which grows by a character a time, and what is
    left of it.
    """
    pieces: list[str] = []
    caller = Caller(stops=stops, tell=lambda sample, piece: pieces.append(piece))
    for end in range(1, len(text) + 1):
        written = text[:end].strip()
        if caller.hear(0, lambda written=written: written):
            break
    else:
        written = text.strip()
    return pieces, caller.rest(0, before_stop(written, stops))


@pytest.mark.parametrize(
    ("stops", "pieces", "rest"),
    [
        ([], ["3", " +", " 4", " =", " 7", "."], ""),
        (["= 7"], ["3", " +", " 4", " "], ""),
        (["= 8"], ["3", " +", " 4", " ", "= 7", "."], ""),
        (["7", "+"], ["3", " "], ""),
        (["3"], [], ""),
        ([" = 7.."], ["3", " +", " 4"], " = 7."),
    ],
)
def test_a_piece_holds_nothing_of_a_stop(stops, pieces, rest):
    assert told("3 + 4 = 7.", stops) == (pieces, rest)


@given(st.text("ab \n", max_size=12), st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
@example("baa", ["a", "baa"])  # a is whole before baa is
def test_pieces_and_rest_are_the_text_before_its_first_stop(text, stops):
    """Bug guarded: a stream that is another text than the answer that is no stream."""
    pieces, rest = told(text, stops)
    assert "".join(pieces) + rest == before_stop(text.strip(), stops)


def test_no_text_is_decoded_for_a_caller_who_only_may_leave():
    """Bug guarded: decoding each text anew for each of its tokens, for nobody."""
    caller = Caller()

    def text():
        raise AssertionError("decoded")

    assert not caller.hear(0, text)
    caller.left = True
    assert caller.hear(0, text)
