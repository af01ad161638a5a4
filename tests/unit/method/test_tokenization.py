"""From texts to examples: tokenizing, which rationales are kept, whose snapshot writes them, and
corrupted ones.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from qcrd_ray.method.examples import Rationale, Source
from qcrd_ray.method.negatives import balancing_negatives, corrupt, merge_rationales, snapshot_for
from qcrd_ray.method.tokenization import tokenize, tokenize_inputs, tokenize_pairs

WORDS = ["<pad>", "</s>", "<unk>", "<mask>", *"abcdefghij", "<s>", "<user>", "<bot>"]
PAD, EOS = 0, 1


def word_tokenizer(*, appends_eos: bool = True) -> PreTrainedTokenizerFast:
    inner = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if appends_eos:  # as T5 does
        inner.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


# --------------------------------------------------------------------------------------------------
# tokenizing


@pytest.mark.parametrize("appends_eos", [True, False])
def test_eos_is_there_once_and_survives_truncation(appends_eos):
    """A target cut without its EOS teaches the student never to stop."""
    tokenizer = word_tokenizer(appends_eos=appends_eos)
    rows, truncated = tokenize(tokenizer, ["a b", "a b c", "a b c d e f"], max_tokens=4)
    assert rows == [(4, 5, EOS), (4, 5, 6, EOS), (4, 5, 6, EOS)]
    assert truncated == 1


def test_a_blank_text_is_an_empty_row_not_a_bare_eos():
    assert tokenize(word_tokenizer(), ["a", "  "], max_tokens=4).rows == [(4, EOS), ()]
    assert tokenize(word_tokenizer(), [], max_tokens=4) == ([], 0)


def test_pairs_are_the_tokenizers_own_and_cuts_are_counted():
    rows, truncated = tokenize_pairs(
        word_tokenizer(), ["a b", "a b c d e"], ["c", "f"], max_tokens=6
    )
    assert rows[0] == (4, 5, EOS, 6, EOS)
    assert len(rows[1]) == 6 and rows[1][-2:] == (9, EOS), "the longer side, the question, is cut"
    assert truncated == 1
    assert tokenize_pairs(word_tokenizer(), [], [], max_tokens=6) == ([], 0)


CHAT = (
    "{% for m in messages %}{{ '<user>' + m['content'] }}{% endfor %}{% if add_generation_prompt"
    " %}{{ '<bot>' }}{% endif %}"
)


def chat_tokenizer(template: str = CHAT) -> PreTrainedTokenizerFast:
    """A decoder-only model's: it begins a text by itself, and ends none."""
    inner = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", WORDS.index("<s>"))]
    )
    marks = {"bos_token": "<s>", "extra_special_tokens": ["<user>", "<bot>"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", unk_token="<unk>", chat_template=template, **marks
    )


USER, BOT = WORDS.index("<user>"), WORDS.index("<bot>")


def test_a_chat_templates_input_is_what_transformers_makes_of_it_and_targets_begin_nothing():
    """A second start token before a target would be learnt as part of it."""
    tokenizer = chat_tokenizer()
    assert tokenize_inputs(tokenizer, ["a b"], max_tokens=9).rows == [(USER, 4, 5, BOT)]
    message = [{"role": "user", "content": "a b"}]
    assert tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"] == [
        USER,
        4,
        5,
        BOT,
    ]
    assert tokenize(tokenizer, ["c d"], max_tokens=9).rows == [(6, 7, EOS)]


def test_a_cut_takes_nothing_of_the_chat_template():
    """A prompt cut without its end asks for more of the question."""
    rows, truncated = tokenize_inputs(chat_tokenizer(), ["a b c d e", "a b"], max_tokens=4)
    assert rows == [(USER, 4, 5, BOT)] * 2 and truncated == 1


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("<user><bot>", "does not show"),
        (CHAT.replace("content']", "content'] | upper"), "does not show"),
        (CHAT, "takes 2"),
    ],
)
def test_a_chat_template_that_is_of_no_use_is_told(template, told):
    with pytest.raises(ValueError, match=told):
        tokenize_inputs(chat_tokenizer(template), ["a b c"], max_tokens=2)


def test_an_encoder_decoders_inputs_are_closed_like_its_targets():
    assert tokenize_inputs(word_tokenizer(), ["a b"], max_tokens=4) == tokenize(
        word_tokenizer(), ["a b"], max_tokens=4
    )


@pytest.mark.parametrize(
    ("max_tokens", "row"),
    [(9, (4, 5, EOS, 6, 7, 8, EOS)), (6, (4, 5, EOS, 6, 7, EOS)), (4, (4, EOS, 6, EOS))],
)
def test_pairs_are_closed_where_the_tokenizer_closes_none(max_tokens, row):
    """Else the discriminator of a decoder-only student could not tell where the question ends."""
    rows, truncated = tokenize_pairs(chat_tokenizer(), ["a b"], ["c d e"], max_tokens=max_tokens)
    assert rows == [row] and truncated == (max_tokens < 7)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(2, 20))
def test_closed_pairs_fill_their_room_and_cut_the_longer_side(question, rationale, max_tokens):
    rows, truncated = tokenize_pairs(
        chat_tokenizer(), ["a " * question], ["b " * rationale], max_tokens=max_tokens
    )
    assert len(rows[0]) == min(question + rationale + 2, max_tokens) and truncated == (
        question + rationale + 2 > max_tokens
    )
    kept = rows[0].count(4), rows[0].count(5)
    assert all(
        part == whole or part >= (max_tokens - 2) // 2
        for part, whole in zip(kept, (question, rationale), strict=True)
    )


# --------------------------------------------------------------------------------------------------
# negatives


def of(*rows: tuple[int, ...], source: Source = Source.TEACHER) -> list[Rationale]:
    return [Rationale(tokens=row, source=source) for row in rows]


def test_a_repeated_text_counts_once_and_first_come_first():
    """Four equal positives would weigh fourfold in the log-sum-exp of equation (2)."""
    positives, negatives = merge_rationales(
        of((4, EOS), (5, EOS), (4, EOS)),
        [*of((6, EOS)), *of((6, EOS), (7, EOS), source=Source.STUDENT)],
    )
    assert [rationale.tokens for rationale in positives] == [(4, EOS), (5, EOS)]
    assert [(rationale.tokens[0], rationale.source) for rationale in negatives] == [
        (6, "teacher"),
        (7, "student"),
    ]


def test_a_blank_sample_is_dropped():
    """A student at T = 1.5 writes them; one must not stop the run."""
    _, negatives = merge_rationales([], of((), (4, EOS), source=Source.STUDENT))
    assert [rationale.tokens for rationale in negatives] == [(4, EOS)]


def test_a_negative_equal_to_a_positive_stays_by_default_and_goes_when_asked():
    positives, negatives = of((4, EOS)), of((4, EOS), (5, EOS))
    assert len(merge_rationales(positives, negatives)[1]) == 2
    _, kept = merge_rationales(positives, negatives, drop_equal_to_positive=True)
    assert [rationale.tokens for rationale in kept] == [(5, EOS)]


rows = st.lists(st.lists(st.integers(2, 4), max_size=2).map(tuple), max_size=5)


@given(positives=rows, teacher=rows, student=rows, drop=st.booleans())
def test_every_text_but_blank_ones_is_kept_once_a_side(positives, teacher, student, drop):
    kept_positives, kept_negatives = merge_rationales(
        of(*positives),
        [*of(*teacher), *of(*student, source=Source.STUDENT)],
        drop_equal_to_positive=drop,
    )
    distinct = dict.fromkeys(row for row in positives if row)
    assert [rationale.tokens for rationale in kept_positives] == list(distinct)
    excluded = set(distinct) if drop else set()
    assert [rationale.tokens for rationale in kept_negatives] == [
        row for row in dict.fromkeys((*teacher, *student)) if row and row not in excluded
    ]


@pytest.mark.parametrize(("round", "expected"), [(0, 0), (4, 0), (5, 0), (6, 1), (15, 10)])
def test_snapshot_lag_rounds_old_or_the_oldest(round, expected):
    assert snapshot_for(round, lag=5) == expected


@pytest.mark.parametrize(("round", "expected"), [(0, None), (4, None), (5, 0), (6, 1)])
def test_no_student_negatives_before_the_lag_when_asked(round, expected):
    assert snapshot_for(round, lag=5, before_lag="none") == expected


def test_a_lag_below_one_is_refused():
    """Snapshot r of round r would be the weights that are being trained."""
    with pytest.raises(ValueError, match="lag must be at least 1"):
        snapshot_for(3, lag=0)


# --------------------------------------------------------------------------------------------------
# augmentation

SETTINGS = {
    "vocabulary": ["x", "y", "z"],
    "mask": "<mask>",
    "mask_share": 0.25,
    "replace_share": 0.25,
}


def test_corrupt_masks_and_replaces_its_shares():
    words = corrupt("a b c d e f g h", **SETTINGS, random=random.Random(0)).split()
    assert len(words) == 8
    assert words.count("<mask>") == 2 and sum(word in {"x", "y", "z"} for word in words) == 2


@given(st.lists(st.sampled_from("abcxyz"), min_size=1, max_size=12), st.integers(0, 99))
def test_a_corrupted_text_is_never_the_text(words, seed):
    """It would be the same text as positive and negative."""
    text = " ".join(words)
    assert corrupt(text, **SETTINGS, random=random.Random(seed)) != text


def test_a_vocabulary_without_another_word_masks():
    assert (
        corrupt(
            "a",
            vocabulary=["a"],
            mask="<mask>",
            mask_share=0.0,
            replace_share=0.5,
            random=random.Random(0),
        )
        == "<mask>"
    )


def test_balancing_brings_negatives_up_to_positives():
    extra = balancing_negatives(
        ["a b c d", "e f g h", "a c e g"], ["b d f h"], **SETTINGS, seed=0, key=(3, 1)
    )
    assert len(extra) == 2 and len({*extra, "a b c d", "e f g h", "a c e g", "b d f h"}) == 6


@pytest.mark.parametrize(
    ("positives", "negatives"),
    [([], ["a b"]), (["a b"], ["c d"]), (["a b"], ["c d", "e f"]), ([], [])],
)
def test_balancing_adds_nothing_where_nothing_is_missing(positives, negatives):
    assert balancing_negatives(positives, negatives, **SETTINGS, seed=0, key=(0,)) == []


def test_balancing_is_a_pure_function_of_seed_and_key():
    def made(seed: int, *key: int) -> list[str]:
        return balancing_negatives(["a b c d e f g h i j"] * 3, [], **SETTINGS, seed=seed, key=key)

    assert made(0, 1, 2) == made(0, 1, 2)
    assert made(0, 1, 2) != made(0, 1, 3) != made(1, 1, 3)
