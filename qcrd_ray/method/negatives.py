"""Which snapshot writes a round's student negatives, and which rationales of a question are
kept.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from qcrd_ray.method.batching import keyed_random
from qcrd_ray.method.examples import Rationale


def snapshot_for(
    round: int, *, lag: int, before_lag: Literal["oldest", "none"] = "oldest"
) -> int | None:
    """The snapshot that samples the negatives of ``round``: the one ``lag`` rounds old. Snapshot r
    is the weights at the start of round r.

    Before round ``lag`` there is none that old: "oldest" takes snapshot 0, the initial weights;
    "none" (and the answer None) does without student negatives.
    """
    if lag < 1:
        raise ValueError(f"lag must be at least 1, not {lag}")
    if round >= lag:
        return round - lag
    return 0 if before_lag == "oldest" else None


class Merged(NamedTuple):
    """The rationales of one question. ``dropped`` counts the others by reason: blank, duplicate,
    equals_positive.
    """

    positives: tuple[Rationale, ...]
    negatives: tuple[Rationale, ...]
    dropped: Counter[str]


def merge(
    positives: Iterable[Rationale],
    negatives: Iterable[Rationale],
    others: Iterable[Rationale] = (),
    *,
    drop_equal_to_positive: bool = False,
) -> Merged:
    """Keep each text once a side, first come first, ``negatives``, the teacher's, before the
    ``others``; blank ones never.

    ``drop_equal_to_positive`` drops a negative that is word for word a positive (METHOD.md section
    4: such pairs sink together); the paper says nothing of it, so the default keeps it.
    """
    dropped: Counter[str] = Counter()
    kept_positives = _distinct(positives, dropped)
    kept_negatives = _distinct([*negatives, *others], dropped)
    if drop_equal_to_positive:
        known = {rationale.tokens for rationale in kept_positives}
        remaining = [rationale for rationale in kept_negatives if rationale.tokens not in known]
        dropped["equals_positive"] += len(kept_negatives) - len(remaining)
        kept_negatives = remaining
    return Merged(tuple(kept_positives), tuple(kept_negatives), dropped)


def _distinct(rationales: Iterable[Rationale], dropped: Counter[str]) -> list[Rationale]:
    kept: dict[tuple[int, ...], Rationale] = {}
    for rationale in rationales:
        if not rationale.tokens:
            dropped["blank"] += 1
        elif rationale.tokens in kept:
            dropped["duplicate"] += 1
        else:
            kept[rationale.tokens] = rationale
    return list(kept.values())


# MERGED method.augmentation: Corrupted rationales: the discriminator's extra negatives, which
# balance its classes (the paper's word masking and replacement).


def corrupt(
    text: str,
    *,
    vocabulary: Sequence[str],
    mask: str,
    mask_share: float,
    replace_share: float,
    random: random.Random,
) -> str:
    """``text`` with a share of its words masked by ``mask`` and another replaced by words of
    ``vocabulary``.

    At least one word changes (where a share is above 0), so that the result differs from a text
    whose words are not all alike.
    """
    words = text.split()
    masked, replaced = (
        max(round(share * len(words)), int(share > 0)) for share in (mask_share, replace_share)
    )
    places = random.sample(range(len(words)), min(len(words), masked + replaced))
    for place in places[:masked]:
        words[place] = mask
    for place in places[masked:]:
        words[place] = _another(words[place], vocabulary, random) or mask
    return " ".join(words)


def _another(word: str, vocabulary: Sequence[str], random: random.Random) -> str | None:
    """A word of ``vocabulary`` other than ``word``: two draws are enough but for a vocabulary of
    few words, which is searched.
    """
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

    A pure function of (seed, key), where the key is such as (question, step). A corruption that
    equals a text of the question is left out.
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
