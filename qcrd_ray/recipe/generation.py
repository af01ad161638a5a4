"""``sampling``, ``generation``, ``vote``: how the teacher is sampled and asked, and which of its answers is believed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qcrd_ray.recipe.sections import Count, NotNegative, Positive, Section


class SamplingRecipe(Section):
    """How the teacher is sampled. K = 5 at T = 0.7 are the paper's, as its summaries give them."""

    k: Count = 5
    temperature: NotNegative = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Count = 256
    stop: tuple[str, ...] = ()


class GenerationRecipe(Section):
    """How the teacher is asked: requests in flight, retries, and how often finished rows reach the disk."""

    actors: Count = Field(1, description="Ray Data actors that ask the teacher")
    resources_per_actor: dict[str, float] = Field({}, description="custom resources that tie the actors to a group of nodes")
    requests_in_flight: Count = Field(64, description="per actor")
    questions_per_request: Count = 1
    attempts: Count = Field(4, description="how often one request is tried before its rows end as `failed`")
    backoff_s: NotNegative = 0.5
    request_timeout_s: Positive = 600.0
    rows_per_block: Count = Field(64, description="rows that are written, and so can be resumed, together")


class VoteRecipe(Section):
    """Self-consistency, and what becomes of the cases that the paper does not name."""

    incomplete: Literal["failed", "vote"] = "failed"
    truncated: Literal["abstain", "vote"] = "abstain"
    tie: Literal["no_consensus", "first"] = "no_consensus"
