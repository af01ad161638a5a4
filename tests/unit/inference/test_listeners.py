"""Texts heard while they are written, and ended by who hears them, by each engine on a CPU."""

from __future__ import annotations

import pytest
from listener import Ear
from test_engines import make_lively

from qcrd_ray.inference import load_engine
from qcrd_ray.inference.base import text_so_far

PROMPTS = ["predict: 3 plus 4", "explain: Tom has 12 apples. How many?", "predict: 7", "a b c d"]
MAX_TOKENS = 16


@pytest.fixture(
    scope="module",
    params=[
        ("transformers", "tiny_student"),
        ("transformers", "tiny_decoder"),
        ("ctranslate2", "tiny_student"),
    ],
    ids=lambda kind: "-".join(kind),
)
def engine(request, tmp_path_factory):
    name, student = request.param
    root = tmp_path_factory.mktemp("lively")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QCRD_CACHE", str(root / "cache"))
        folder = make_lively(request.getfixturevalue(student), root / "student")
        # two batches: a listener's place in its batch is not its place among the prompts
        yield load_engine(folder, engine=name, batch_size=6)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_token_is_heard_and_listening_changes_nothing(engine, temperature):
    """Bug guarded: a stream that came after the text was whole."""
    ask = {"n": 2, "temperature": temperature, "max_tokens": MAX_TOKENS, "seed": 3}
    ears = [Ear() for _ in PROMPTS]
    texts = engine.generate(PROMPTS, listeners=ears, **ask)
    assert texts == engine.generate(PROMPTS, **ask)
    for ear, samples in zip(ears, texts, strict=True):
        for number, generated in enumerate(samples):
            heard = ear.heard.get(number, [])
            assert generated.tokens - 1 <= len(heard) <= generated.tokens
            for before, after in zip(heard, [*heard[1:], generated.text], strict=True):
                assert after.startswith(before), "what was passed on cannot be taken back"
    grown = [text for ear in ears for heard in ear.heard.values() for text in heard]
    assert len(set(grown)) > len(PROMPTS) * 4


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_listener_ends_its_own_texts_alone(engine, temperature):
    """Bug guarded: texts that nobody waits for are written to their end. Ending a text must not
    disturb its neighbours in the batch.
    """
    ask = {"n": 2, "temperature": temperature, "max_tokens": MAX_TOKENS, "seed": 3}
    whole = engine.generate(PROMPTS, **ask)
    ended = max(range(len(PROMPTS)), key=lambda i: min(each.tokens for each in whole[i]))
    assert min(each.tokens for each in whole[ended]) > 4, "nothing is left to be ended"
    ears = [None] * len(PROMPTS)
    ears[ended] = Ear(last=3)
    texts = engine.generate(PROMPTS, listeners=ears, **ask)
    for i, (mine, theirs) in enumerate(zip(texts, whole, strict=True)):
        if i != ended:
            assert mine == theirs
            continue
        for number, (cut, uncut) in enumerate(zip(mine, theirs, strict=True)):
            assert (cut.tokens, cut.finish_reason) == (3, "stop")
            assert uncut.text.startswith(cut.text) and len(cut.text) < len(uncut.text)
            assert len(ears[ended].heard[number]) == 3, "it was written on"


def test_an_unfinished_character_is_held_back():
    """Bug guarded: the halves of a character, sent as two replacement marks."""

    class Bytes:
        clean_up_tokenization_spaces = False

        def decode(self, ids, **_):
            return bytes(ids).decode(errors="replace")

    euro = "3 €".encode()
    texts = [text_so_far(Bytes(), euro[: n + 1]) for n in range(len(euro))]
    assert texts == ["3", "3", "3", "3", "3 €"]


def test_a_tokenizer_that_tidies_spaces_holds_the_last_word_back():
    """Bug guarded: "it '" was sent, and then the text was "it's"."""

    class Tidy:
        clean_up_tokenization_spaces = True

        def decode(self, words, **_):
            return " ".join(words).replace(" ' ", "'")

    words = ["it", "'", "s", "red"]
    texts = [text_so_far(Tidy(), words[: n + 1]) for n in range(len(words))]
    assert texts == ["", "it", "", "it's"]
