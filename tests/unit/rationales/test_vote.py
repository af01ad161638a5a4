"""The vote: what becomes of every mixture of answers that K completions can hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_ray.data.records import Completion, Outcome, Role
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.vote_result import plain_result
from qcrd_ray.rationales.vote import hold_vote
from qcrd_ray.recipe import VoteRecipe

POSITIVE, NEGATIVE, ABSTAINED = Role.POSITIVE, Role.NEGATIVE, Role.ABSTAINED


def completion(answer: str | None, *, finish_reason: str = "stop") -> Completion:
    return Completion(
        text="...",
        finish_reason=finish_reason,
        answer=answer,
        reason="" if answer is not None else "no number in it",
    )


def vote(*answers: str | None, k: int | None = None, **recipe):
    completions = [completion(answer) for answer in answers]
    return hold_vote(completions, k=k or len(answers), recipe=VoteRecipe(**recipe))


def roles(result) -> list[Role]:
    return [completion.role for completion in result.completions]


def test_majority_makes_positives_and_negatives():
    result = vote("8", "8", "3", "8", "5")
    assert (result.outcome, result.vote, result.share) == (Outcome.ACCEPTED, "8", 0.6)
    assert roles(result) == [POSITIVE, POSITIVE, NEGATIVE, POSITIVE, NEGATIVE]


def test_unanimous_vote_has_no_negatives():
    result = vote("8", "8", "8")
    assert (result.share, roles(result)) == (1.0, [POSITIVE] * 3)


def test_a_plurality_below_half_is_enough():
    assert vote("1", "1", "2", "3", "4").vote == "1"


def test_unparsed_completions_abstain_and_do_not_lower_the_share():
    result = vote("8", None, "8", None, "3")
    assert (result.vote, result.share) == ("8", pytest.approx(2 / 3))
    assert roles(result) == [POSITIVE, ABSTAINED, POSITIVE, ABSTAINED, NEGATIVE]


def test_one_parsed_completion_decides_alone():
    assert vote(None, None, "4", None, None).vote == "4"


def test_a_tie_is_no_consensus_and_nobody_is_positive_or_negative():
    """Without a vote there is no minority either: training on half of a tie as negatives would
    punish right answers.
    """
    result = vote("8", "3", "8", "3", "5")
    assert (result.outcome, result.vote, result.share) == (Outcome.NO_CONSENSUS, None, 0.0)
    assert result.reason == "tied at 2 votes: 8, 3"
    assert roles(result) == [ABSTAINED] * 5


def test_a_tie_can_go_to_the_answer_that_came_first():
    result = vote("3", "8", "8", "3", tie="first")
    assert (result.outcome, result.vote, result.share) == (Outcome.ACCEPTED, "3", 0.5)


def test_the_first_of_all_wins_a_tie_only_among_the_tied():
    assert vote("5", "8", "3", "8", "3", tie="first").vote == "8"


def test_nothing_parsed_is_unparsed_with_the_commonest_reason():
    result = vote(None, None)
    assert (result.outcome, result.vote, result.reason) == (
        Outcome.UNPARSED,
        None,
        "no number in it",
    )


def test_fewer_than_k_is_a_failure_and_not_a_smaller_vote():
    result = vote("8", "8", k=5)
    assert (result.outcome, result.reason) == (Outcome.FAILED, "2 of 5 completions came back")
    assert len(result.completions) == 2  # kept, for whoever looks


def test_fewer_than_k_can_vote():
    assert vote("8", "8", k=5, incomplete="vote").vote == "8"


def test_nothing_at_all_is_a_failure_even_where_incomplete_sets_vote():
    assert hold_vote([], k=5, recipe=VoteRecipe(incomplete="vote")).outcome == Outcome.FAILED


def test_cut_off_completions_abstain_although_a_number_was_read():
    """The last number of half a calculation is no answer."""
    completions = [
        completion("8"),
        completion("3", finish_reason="length"),
        completion("3", finish_reason="length"),
    ]
    result = hold_vote(completions, k=3, recipe=VoteRecipe())
    assert result.vote == "8"
    assert roles(result) == [POSITIVE, ABSTAINED, ABSTAINED]
    assert result.completions[1].reason == "cut off by the token limit"
    assert result.completions[1].answer == "3"  # what was read is kept


def test_cut_off_completions_can_vote():
    completions = [
        completion("8"),
        completion("3", finish_reason="length"),
        completion("3", finish_reason="length"),
    ]
    assert hold_vote(completions, k=3, recipe=VoteRecipe(truncated="vote")).vote == "3"


def test_all_cut_off_is_unparsed_and_says_why():
    result = hold_vote([completion("3", finish_reason="length")] * 2, k=2, recipe=VoteRecipe())
    assert (result.outcome, result.reason) == (Outcome.UNPARSED, "cut off by the token limit")


@given(
    st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9),
    st.sampled_from(["no_consensus", "first"]),
)
def test_roles_and_outcome_always_agree(answers, tie):
    result = vote(*answers, tie=tie)
    assert len(result.completions) == len(answers)
    assert (
        (result.outcome == Outcome.ACCEPTED)
        == (result.vote is not None)
        == (POSITIVE in roles(result))
    )
    for given_answer, completion_ in zip(answers, result.completions, strict=True):
        assert completion_.answer == given_answer
        assert (completion_.role == POSITIVE) == (
            result.vote is not None and given_answer == result.vote
        )
        assert (completion_.role == ABSTAINED) == (result.vote is None or given_answer is None)


@given(st.permutations(["1", "1", "2", "3", None]))
def test_the_order_of_completions_does_not_change_a_clear_vote(answers):
    """Recordings come sorted by correctness; a vote must not notice."""
    assert vote(*answers).vote == "1"


def test_a_filtered_completion_abstains_even_where_a_truncated_one_votes():
    completions = [
        completion("8"),
        completion("8", finish_reason="length"),
        completion("9", finish_reason="content_filter"),
    ]
    result = hold_vote(completions, k=3, recipe=VoteRecipe(truncated="vote"))
    assert roles(result) == [POSITIVE, POSITIVE, ABSTAINED]
    assert result.completions[2].reason == "cut off by a content filter"


def test_vote_share_and_confidence_are_two_names_for_two_shares():
    """`vote_share` is a share of the votes cast, the endpoint's `confidence` one of all samples."""
    answers = ["7", None, "7", "8", None]
    teacher = hold_vote([completion(answer) for answer in answers], k=5, recipe=VoteRecipe())
    endpoint = plain_result([HeadAnswer(text="", answer=answer) for answer in answers])
    assert (teacher.vote, teacher.share) == ("7", pytest.approx(2 / 3))
    assert (endpoint.answer, endpoint.confidence) == ("7", pytest.approx(2 / 5))
