"""The negatives of a question: the snapshot that samples them, and which of them are kept.

The discriminator's extra negatives are corrupted positives (the paper's word masking and
replacement). They balance its two classes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from qcrd_ray.method.batching import keyed_random
from qcrd_ray.method.examples import Rationale, Tokens


def snapshot_for(
    round: int, *, lag: int, before_lag: Literal["oldest", "none"] = "oldest"
) -> int | None:
    """The snapshot that samples the negatives of ``round``: the one ``lag`` rounds old.

    Snapshot r is the weights at the start of round r. Before round ``lag`` there is none that old:
    "oldest" takes snapshot 0, the initial weights; "none" goes without student negatives (None).

    Raises:
        ValueError: ``lag`` is below 1.
    """
    if lag < 1:
        raise ValueError(f"lag must be at least 1, not {lag}")
    if round >= lag:
        return round - lag
    return 0 if before_lag == "oldest" else None


def merge_rationales(
    positives: Iterable[Rationale],
    negatives: Iterable[Rationale],
    *,
    drop_equal_to_positive: bool = False,
) -> tuple[tuple[Rationale, ...], tuple[Rationale, ...]]:
    """(positives, negatives) of one question: each text once a side, the first one stays.

    Blank rationales are left out. ``drop_equal_to_positive`` also drops a negative that is word for
    word a positive (METHOD.md section 4: such pairs sink together). The paper says nothing of it,
    so the default keeps it.
    """
    distinct_positives = _distinct(positives)
    distinct_negatives = _distinct(negatives)
    if drop_equal_to_positive:
        distinct_negatives = {
            tokens: rationale
            for tokens, rationale in distinct_negatives.items()
            if tokens not in distinct_positives
        }
    return tuple(distinct_positives.values()), tuple(distinct_negatives.values())


def _distinct(rationales: Iterable[Rationale]) -> dict[Tokens, Rationale]:
    """The rationales by their tokens, in their order; blank ones are left out."""
    distinct: dict[Tokens, Rationale] = {}
    for rationale in rationales:
        if rationale.tokens:
            distinct.setdefault(rationale.tokens, rationale)
    return distinct


def corrupt(
    text: str,
    *,
    vocabulary: Sequence[str],
    mask: str,
    mask_share: float,
    replace_share: float,
    random: random.Random,
) -> str:
    """``text`` with a share of its words masked by ``mask``, another replaced from ``vocabulary``.

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
        words[place] = _other_word(words[place], vocabulary, random) or mask
    return " ".join(words)


def _other_word(word: str, vocabulary: Sequence[str], random: random.Random) -> str | None:
    """A random word of ``vocabulary`` other than ``word``; None: there is none.

    Two draws are enough unless the vocabulary has few words; then it is searched.
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
    """As many corrupted positives as a question has positives more than negatives.

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
