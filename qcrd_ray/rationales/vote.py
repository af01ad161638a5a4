"""Self-consistency: K parsed completions of a question vote, and the question gets its outcome.

METHOD.md section 1, step 2. Pure: no file, no Ray, no randomness. Completions that agree with the
vote are positives, those that disagree are the teacher's negatives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qcrd_ray.data.records import Completion, Outcome, Role
from qcrd_ray.method.self_consistency import count_votes
from qcrd_ray.recipe import VoteRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteResult:
    """The outcome of one question, and its completions with their roles.

    ``share`` is the winning answer's share of the votes cast; completions that abstained do not
    count (see :mod:`qcrd_ray.method.self_consistency`).
    """

    outcome: Outcome
    completions: tuple[Completion, ...]
    vote: str | None = None
    share: float = 0.0
    reason: str = ""


def hold_vote(completions: Sequence[Completion], *, k: int, recipe: VoteRecipe) -> VoteResult:
    """Vote over completions whose ``answer`` (canonical, or None) is filled in.

    A completion without an answer abstains, and so does one that the token limit (`vote.truncated`)
    or an endpoint's content filter cut off: its last number need not be its answer. The answer with
    strictly most votes wins; a tie is no consensus (`vote.tie`). Fewer than ``k`` completions are a
    failure and not a smaller vote (`vote.incomplete`), because a vote over what is there favours
    whatever is easy to return.
    """
    checked = tuple(_with_abstention(completion, recipe) for completion in completions)
    if not checked or (len(checked) < k and recipe.incomplete == "failed"):
        return VoteResult(
            outcome=Outcome.FAILED,
            completions=checked,
            reason=f"{len(checked)} of {k} completions came back",
        )
    count = count_votes(_vote_of(completion) for completion in checked)
    if not count.votes:
        return VoteResult(
            outcome=Outcome.UNPARSED,
            completions=checked,
            reason=_most_common(completion.reason for completion in checked),
        )
    winner = count.leaders[0]
    if len(count.leaders) > 1 and recipe.tie == "no_consensus":
        return VoteResult(
            outcome=Outcome.NO_CONSENSUS,
            completions=checked,
            reason=f"tied at {count.votes[winner]} votes: {', '.join(count.leaders)}",
        )
    return VoteResult(
        outcome=Outcome.ACCEPTED,
        completions=tuple(_with_role(completion, winner) for completion in checked),
        vote=winner,
        share=count.share_of_votes(winner),
    )


def cast_votes(completions: Sequence[Completion], recipe: VoteRecipe) -> list[str | None]:
    """What each completion votes for; None: it abstains. As :func:`hold_vote` counts them."""
    return [_vote_of(_with_abstention(completion, recipe)) for completion in completions]


def _with_abstention(completion: Completion, recipe: VoteRecipe) -> Completion:
    """The completion as one that abstains, with the reason if it cannot vote ("" if it can)."""
    if completion.finish_reason == "length" and recipe.truncated == "abstain":
        reason = "cut off by the token limit"
    elif completion.finish_reason == "content_filter":
        reason = "cut off by a content filter"
    else:
        reason = completion.reason or ("" if completion.answer is not None else "no answer found")
    if (completion.role, completion.reason) == (Role.ABSTAINED, reason):
        return completion  # most of them, as they come from the parser
    return replace(completion, role=Role.ABSTAINED, reason=reason)


def _vote_of(completion: Completion) -> str | None:
    """The answer that it votes for; None: it abstains."""
    return None if completion.reason else completion.answer


def _with_role(completion: Completion, winner: str) -> Completion:
    vote = _vote_of(completion)
    if vote is None:
        return completion
    return replace(completion, role=Role.POSITIVE if vote == winner else Role.NEGATIVE)


def _most_common(reasons: Iterable[str]) -> str:
    return Counter(reasons).most_common(1)[0][0]
