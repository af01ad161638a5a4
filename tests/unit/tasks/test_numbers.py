"""Numbers in text: each case is a way in which a number has been misread."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qcrd_ray.tasks.numbers import find_number_words, find_numbers, plain, spell


def values(text: str) -> list[str]:
    return [spell(value) for _, _, value in find_numbers(plain(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234 apples", ["1234"]),  # a thousands comma is no separator of two numbers
        ("1,007, 12 and 3", ["1007", "12", "3"]),
        ("$5.00", ["5"]),
        (r"\$5", ["5"]),
        ("$ 1,234.50.", ["1234.5"]),  # a sentence's full stop is no decimal point
        ("32.0", ["32"]),
        (".5 hour", ["0.5"]),
        ("20%", ["20"]),
        ("3/4 of it", ["0.75"]),
        ("1 1/2 hours", ["1.5"]),
        ("2½ cups and ½", ["2.5", "0.5"]),
        ("2 ½ and ½¾", ["2.5", "0.5", "0.75"]),  # the second was read as 1/23/4
        ("1/3", ["1/3"]),  # no decimal ends: kept exact, not 0.3333
        ("5/0", []),  # no division by zero
        ("x = -5", ["-5"]),
        ("−5 degrees", ["-5"]),  # the Unicode minus
        ("12-9=3", ["12", "9", "3"]),  # an operation is no sign
        ("12 -9 = 3", ["12", "9", "3"]),
        ("(12) - 9", ["12", "9"]),
        ("- 4 emails", ["4"]),  # a bullet is no sign
        ("the 3rd of 4 days", ["4"]),  # an ordinal is no result
        ("2x + 3y = 12", ["12"]),  # coefficients
        ("6 x 72 = 432", ["6", "72", "432"]),  # but a times sign between numbers
        ("5kg", ["5"]),
        ("COVID19 and B2", []),
        ("version 1.2.3", []),  # not a number
        (r"\frac{16}{92}", ["4/23"]),
        (r"\boxed{22}", ["22"]),
        (r"12{,}000 \text{ days}", ["12000"]),
        ("48/2 = <<48/2=24>>24", ["24", "24"]),  # GSM8K's calculator marks count once
        ("9" * 5000, []),  # thousands of digits: refused, not computed with
    ],
)
def test_numbers_are_found(text, expected):
    assert values(text) == expected


def test_number_words_are_a_fallback_of_their_own():
    assert find_number_words("twenty-one birds and seven cats, none of them Kevin's") == [21, 7]


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4
    )
)
def test_a_spelling_reads_back_exactly(number):
    """Guards against floats and Decimal's 28-digit context on the way: 0.1 must stay 0.1."""
    value = Fraction(number)
    assert [v for _, _, v in find_numbers(spell(value))] == [value]


# A spelling beyond MOST_DIGITS characters is refused, as a case above shows.
@given(st.fractions(-(10**30), 10**30, max_denominator=1000))
def test_a_fraction_reads_back_exactly(value):
    assert [v for _, _, v in find_numbers(spell(value))] == [value]


@given(
    st.from_regex(
        r"-?[0-9]{1,24}(\.[0-9]{1,24})?(/[1-9][0-9]{0,12}|e-?[0-9]{1,2})?", fullmatch=True
    )
)
@example("0.0030030030030030030030030")
def test_what_is_read_has_a_spelling_that_is_read(text):
    """Bug guarded: a long decimal was spelt as a fraction too long to be read again, so that the
    explanation that ended in it had no answer.
    """
    for _, _, value in find_numbers(text):
        assert [v for _, _, v in find_numbers(spell(value))] == [value]


def test_a_long_number_is_spelt_exactly():
    assert (
        spell(Fraction("1234567890123456789012345678901234.5"))
        == "1234567890123456789012345678901234.5"
    )
