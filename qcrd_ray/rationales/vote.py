"""Self-consistency: the K parsed completions of a question vote, and the row gets its outcome
(METHOD.md section 1, step 2).

Pure: no file, no Ray, no randomness. Completions that agree with the vote are positives, those that
disagree are the teacher's negatives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qcrd_ray.data.records import Completion, Outcome, Role
from qcrd_ray.recipe import VoteRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The vote over one question. ``share`` is the winning answer's share of the votes that were
    cast.
    """

    outcome: Outcome
    completions: tuple[Completion, ...]
    vote: str | None = None
    share: float = 0.0
    reason: str = ""


def hold_vote(completions: Sequence[Completion], *, k: int, recipe: VoteRecipe) -> Verdict:
    """Vote over completions whose ``answer`` (canonical, or None) is filled in.

    A completion without an answer abstains, and so does one that the token limit (`vote.truncated`)
    or an endpoint's content filter cut off: its last number need not be its answer. The answer with
    strictly most votes wins; a tie is no consensus (`vote.tie`). Fewer than ``k`` completions are a
    failure and not a smaller vote (`vote.incomplete`), because a vote over what is there favours
    whatever is easy to return.
    """
    heard = tuple(_abstaining(completion, recipe) for completion in completions)
    if not heard or (len(heard) < k and recipe.incomplete == "failed"):
        return Verdict(
            outcome=Outcome.FAILED,
            completions=heard,
            reason=f"{len(heard)} of {k} completions came back",
        )
    votes = [completion.answer for completion in heard if _votes(completion)]
    if not votes:
        return Verdict(
            outcome=Outcome.UNPARSED,
            completions=heard,
            reason=_commonest(completion.reason for completion in heard),
        )
    # in the order of first appearance, so that max() gives a tie to the first
    counts = Counter(votes)
    winner = max(counts, key=counts.__getitem__)
    tied = [answer for answer, count in counts.items() if count == counts[winner]]
    if len(tied) > 1 and recipe.tie == "no_consensus":
        return Verdict(
            outcome=Outcome.NO_CONSENSUS,
            completions=heard,
            reason=f"tied at {counts[winner]} votes: {', '.join(tied)}",
        )
    return Verdict(
        outcome=Outcome.ACCEPTED,
        completions=tuple(_with_role(completion, winner) for completion in heard),
        vote=winner,
        share=counts[winner] / len(votes),
    )


def _abstaining(completion: Completion, recipe: VoteRecipe) -> Completion:
    """The completion before any vote is known, with the reason where it will not take part."""
    cut_off = completion.finish_reason == "length" and recipe.truncated == "abstain"
    filtered = completion.finish_reason == "content_filter"
    reason = (
        "cut off by the token limit"
        if cut_off
        else "cut off by a content filter"
        if filtered
        else completion.reason
    )
    return replace(
        completion,
        role=Role.ABSTAINED,
        reason=reason or ("" if completion.answer is not None else "no answer found"),
    )


def _votes(completion: Completion) -> bool:
    return completion.answer is not None and not completion.reason


def _with_role(completion: Completion, winner: str) -> Completion:
    if not _votes(completion):
        return completion
    return replace(completion, role=Role.POSITIVE if completion.answer == winner else Role.NEGATIVE)


def _commonest(reasons) -> str:
    return Counter(reasons).most_common(1)[0][0]
