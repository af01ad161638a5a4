"""Corrupted rationales: the discriminator's extra negatives, which balance its classes (the paper's word masking and replacement)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from qcrd_ray.method.randomness import keyed_random


def corrupt(text: str, *, vocabulary: Sequence[str], mask: str, mask_share: float, replace_share: float, random: random.Random) -> str:
    """``text`` with a share of its words masked by ``mask`` and another replaced by words of ``vocabulary``.

    At least one word changes (where a share is above 0), so that the result differs from a text whose words are not all alike.
    """
    words = text.split()
    masked, replaced = (max(round(share * len(words)), int(share > 0)) for share in (mask_share, replace_share))
    places = random.sample(range(len(words)), min(len(words), masked + replaced))
    for place in places[:masked]:
        words[place] = mask
    for place in places[masked:]:
        words[place] = _another(words[place], vocabulary, random) or mask
    return " ".join(words)


def _another(word: str, vocabulary: Sequence[str], random: random.Random) -> str | None:
    """A word of ``vocabulary`` other than ``word``: two draws are enough but for a vocabulary of few words, which is searched."""
    for _ in range(2):
        if vocabulary and (drawn := random.choice(vocabulary)) != word:
            return drawn
    return next((other for other in vocabulary if other != word), None)


def balancing_negatives(
    positives: Sequence[str],
    negatives: Sequence[str],
    *,
    vocabulary: Sequence[str],
    mask: str,
    mask_share: float,
    replace_share: float,
    seed: int,
    key: Sequence[object],
) -> list[str]:
    """As many corrupted positives as bring a question's negatives up to its positives in number.

    A pure function of (seed, key), where the key is such as (question, step). A corruption that equals a text of the question is left out.
    """
    extra: list[str] = []
    known = {*positives, *negatives}
    for i in range(max(0, len(positives) - len(negatives))):
        text = corrupt(
            positives[i % len(positives)],
            vocabulary=vocabulary,
            mask=mask,
            mask_share=mask_share,
            replace_share=replace_share,
            random=keyed_random(seed, "augment", *key, i),
        )
        if text not in known:
            known.add(text)
            extra.append(text)
    return extra
