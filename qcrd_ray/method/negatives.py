"""Which snapshot writes a round's student negatives, and which rationales of a question are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from qcrd_ray.method.examples import Rationale


def snapshot_for(round: int, *, lag: int, before_lag: Literal["oldest", "none"] = "oldest") -> int | None:
    """The snapshot that samples the negatives of ``round``: the one ``lag`` rounds old. Snapshot r is the weights at the start of round r.

    Before round ``lag`` there is none that old: "oldest" takes snapshot 0, the initial weights; "none" (and the answer None) does without
    student negatives.
    """
    if lag < 1:
        raise ValueError(f"lag must be at least 1, not {lag}")
    if round >= lag:
        return round - lag
    return 0 if before_lag == "oldest" else None


class Merged(NamedTuple):
    """The rationales of one question. ``dropped`` counts the others by reason: blank, duplicate, equals_positive."""

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
    """Keep each text once a side, first come first, ``negatives``, the teacher's, before the ``others``; blank ones never.

    ``drop_equal_to_positive`` drops a negative that is word for word a positive (METHOD.md section 4: such pairs sink together); the paper
    says nothing of it, so the default keeps it.
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
