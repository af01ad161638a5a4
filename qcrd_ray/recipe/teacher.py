"""``teacher``: who writes the rationales. Which of the three it is stands in ``source``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegative, Positive, Resources, Section


class ServeTeacher(Section):
    """A Ray Serve deployment that hosts the teacher in vLLM."""

    source: Literal["serve"]
    model: str = Field(description="hub id, folder, or `demo` for the shipped teacher")
    accelerator: str = Field(
        "auto", description="auto, cpu, gpu, or a Ray accelerator type such as A100"
    )
    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Count = 1
    replica: Resources = Field(
        Resources(), description="of one replica; its GPUs follow from engine_kwargs"
    )
    max_ongoing_requests: Count = 64
    engine_kwargs: dict[str, Any] = Field(
        {}, description="passed to vLLM as they are: tensor_parallel_size, quantization, ..."
    )
    env: dict[str, str] = Field(
        {}, description="environment of the replicas (no secrets: it enters the job's metadata)"
    )
    chat: Literal["auto", "always", "never"] = Field(
        "auto", description="use the model's chat template: auto = where it has one"
    )
    ready_timeout_s: Positive = 900.0
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _replicas(self):
        if self.replica.gpus:
            raise ValueError(
                "replica.gpus: a replica takes one GPU for each of vLLM's ranks; set"
                " engine_kwargs.tensor_parallel_size or pipeline_parallel_size instead"
            )
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})"
            )
        return self


class RecordedTeacher(Section):
    """Completions that somebody has already paid for: JSON Lines with `id` and `completion`,
    several rows a question.
    """

    source: Literal["recording"]
    path: str
    columns: dict[Literal["id", "completion", "finish_reason"], str] = Field({})


class OpenAITeacher(Section):
    """An OpenAI-compatible endpoint that somebody else runs: a hosted model, or a vLLM server. How
    many requests are in flight, and how often one is tried, stands in ``generation``.
    """

    source: Literal["openai"]
    base_url: str = Field("https://api.openai.com/v1", description="up to and with /v1")
    model: str = Field(description="as the endpoint calls it")
    endpoint: Literal["chat", "completions"] = Field(
        "chat", description="/chat/completions with messages, or /completions with plain text"
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="the variable that holds the key; unset = no key is sent"
    )
    api_key_file: str | None = Field(
        None,
        description=(
            "a file that holds the key, on every node that asks; it goes before the variable"
        ),
    )
    samples_per_request: Count | None = Field(
        None, description="for endpoints that refuse n > 1, say 1; none: all k in one request"
    )
    max_spent_tokens: Count | None = Field(
        None,
        description=(
            "prompt and completion tokens of this run folder, after which it stops in order"
        ),
    )
    extra_body: dict[str, Any] = Field(
        {},
        description=(
            "further fields of the request: top_k, reasoning_effort, ...; null leaves one of ours"
            " out (max_tokens: null)"
        ),
    )

    @model_validator(mode="after")
    def _request(self):
        if "@" in self.base_url.split("://", 1)[-1].split("/", 1)[0] or "?" in self.base_url:
            raise ValueError(
                "base_url must hold neither a user nor a query: a key there would be written into"
                " the run folder"
            )
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with https:// or http://, not {self.base_url!r}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ValueError(
                "api_key_env must be the name of a variable, such as OPENAI_API_KEY, and not the"
                " key itself"
            )
        if taken := sorted(self.extra_body.keys() & {"model", "messages", "prompt", "n", "stream"}):
            raise ValueError(
                f"extra_body cannot hold {', '.join(taken)}: the request sets them itself"
            )
        if ours := [
            key
            for key in ("temperature", "top_p", "max_tokens", "stop")
            if self.extra_body.get(key) is not None
        ]:
            raise ValueError(
                f"extra_body cannot set {', '.join(ours)}: say it under sampling (null leaves it"
                " out of the request)"
            )
        if "seed" in self.extra_body and self.samples_per_request is not None:
            raise ValueError(
                "extra_body.seed with samples_per_request would give the same samples again and"
                " again: leave one of them out"
            )
        return self


TeacherRecipe = Annotated[
    ServeTeacher | OpenAITeacher | RecordedTeacher, Field(discriminator="source")
]


# MERGED recipe.generation: ``sampling``, ``generation``, ``vote``: how the teacher is sampled and
# asked, and which of its answers is believed.


class SamplingRecipe(Section):
    """How the teacher is sampled. K = 5 at T = 0.7 are the paper's, as its summaries give them."""

    k: Count = 5
    temperature: NotNegative = 0.7
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    max_tokens: Count = 256
    stop: tuple[str, ...] = ()


class GenerationRecipe(Section):
    """How the teacher is asked: requests in flight, retries, and how often finished rows reach the
    disk.
    """

    actors: Count = Field(1, description="Ray Data actors that ask the teacher")
    actor: Resources = Resources()
    requests_in_flight: Count = Field(64, description="per actor")
    questions_per_request: Count = 1
    attempts: Count = Field(
        4, description="how often one request is tried before its rows end as `failed`"
    )
    backoff_s: NotNegative = 0.5
    request_timeout_s: Positive = 600.0
    rows_per_block: Count = Field(
        64, description="rows that are written, and so can be resumed, together"
    )


class VoteRecipe(Section):
    """Self-consistency, and what becomes of the cases that the paper does not name."""

    incomplete: Literal["failed", "vote"] = "failed"
    truncated: Literal["abstain", "vote"] = "abstain"
    tie: Literal["no_consensus", "first"] = "no_consensus"
