"""``teacher``, ``sampling``, ``generation`` and ``vote``: where the rationales come from.

The sections say which model writes them, how it is sampled and asked, and which of its answers
wins. ``teacher.source`` is the kind of teacher.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import (
    Count,
    NotNegative,
    NotNegativeCount,
    Positive,
    Resources,
    Section,
    Share,
)
from qcrd_ray.recipe.credentials import VariableName, holds_credentials, secrets_in


class ServeTeacher(Section):
    """A teacher that the run hosts itself: Ray Serve replicas with vLLM."""

    source: Literal["serve"]
    """Which kind of teacher this is."""
    model: str
    """Hub id, folder, or `demo` for the shipped teacher."""
    accelerator: str = "auto"
    """`auto`, `cpu`, `gpu`, or a Ray accelerator type such as A100."""
    min_replicas: Annotated[int, Field(ge=0)] = 1
    """The fewest replicas."""
    max_replicas: Count = 1
    """The most replicas under load."""
    replica: Resources = Resources()
    """What one replica takes of a node; its GPUs follow from engine_kwargs."""
    max_ongoing_requests: Count = 64
    """Requests that a replica works on at once."""
    engine_kwargs: dict[str, Any] = Field(default={})
    """Arguments for vLLM: tensor_parallel_size, quantization, max_model_len, ..."""
    env: dict[str, str] = Field(default={})
    """Environment of the replicas; no secrets: it enters the job's metadata."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Whether to ask in the model's chat template; auto: where it has one."""
    ready_timeout_s: Positive = 900.0
    """Seconds until a replica must answer; raise it for large downloads."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; only for one you trust."""

    @model_validator(mode="after")
    def _secrets(self):
        if named := [*secrets_in(self.env), *secrets_in(self.engine_kwargs)]:
            raise ValueError(
                f"{', '.join(named)} would be written into the run folder and the job's metadata:"
                " set it in the environment of the nodes (HF_TOKEN, for a gated model)"
            )
        return self

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


RecordingColumn = Literal["id", "completion", "finish_reason"]


class RecordedTeacher(Section):
    """Completions that exist already, in a file: JSON Lines, CSV or Parquet.

    Each row has an `id` and a `completion`; a question has several rows.
    """

    source: Literal["recording"]
    """Which kind of teacher this is."""
    path: str
    """The .jsonl, .json (a list), .csv, .tsv or .parquet file; ${VARIABLES} of the environment are
    filled in.
    """
    columns: dict[RecordingColumn, str] = Field(default={})
    """Keys of the file's rows, where they have other names: {completion: text}."""


class OpenAITeacher(Section):
    """An OpenAI-compatible endpoint that others run: a hosted model, or a vLLM server.

    `generation` says how many requests are in flight and how often one is tried.
    """

    source: Literal["openai"]
    """Which kind of teacher this is."""
    base_url: str = "https://api.openai.com/v1"
    """The endpoint's address, up to and with /v1."""
    model: str
    """The model's name at the endpoint."""
    endpoint: Literal["chat", "completions"] = "chat"
    """/chat/completions with messages, or /completions with plain text."""
    api_key_env: VariableName = "OPENAI_API_KEY"
    """The variable that holds the key; unset: no key is sent."""
    api_key_file: str | None = None
    """A file that holds the key, on every node that asks; before the variable."""
    samples_per_request: Count | None = None
    """Samples in one request; 1 where the endpoint refuses n > 1; null: all at once."""
    max_spent_tokens: Count | None = None
    """Budget in tokens, prompts and completions together; asking stops in order when this run
    folder has spent it; null: none. A reply that does not say what it took counts as the most that
    it can have taken.
    """
    extra_body: dict[str, Any] = Field(default={})
    """Further fields of the request: top_k, reasoning_effort, ...; `max_tokens: null` leaves that
    field out.
    """

    @model_validator(mode="after")
    def _request(self):
        host = self.base_url.split("://", 1)[-1].split("/", 1)[0]
        if "@" in host or "?" in self.base_url or holds_credentials(self.base_url):
            raise ValueError(
                "base_url must hold neither a user nor a query: a key there would be written into"
                " the run folder"
            )
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with https:// or http://, not {self.base_url!r}")
        if named := secrets_in(self.extra_body):
            raise ValueError(
                f"extra_body.{named[0]} would be written into the run folder; a key goes into the"
                " variable that api_key_env names, or a file that api_key_file names"
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


class AdaptiveRecipe(Section):
    """Ask in waves, and stop when the vote is settled: at most `sampling.k` samples a question.

    Under either rule asking also stops when the samples that are left cannot change the winner.
    What the defaults save, and what they cost: docs/adaptive-sampling.md.
    """

    rule: Literal["posterior", "window"] = "posterior"
    """posterior: by the votes so far, the leader is likelier than the runner-up; window: the last
    samples agree.
    """
    threshold: Annotated[float, Field(gt=0.5, le=1.0)] = 0.9
    """Of `posterior`: how probable that must be; 1: only what k samples would vote too."""
    window: Annotated[int, Field(ge=2, strict=True)] = 3
    """Of `window`: how many samples must agree; below k."""


class SamplingRecipe(Section):
    """How the teacher is sampled. The paper takes 5 samples at temperature 0.7.

    A served teacher gets all of these numbers, also where the model's `generation_config.json` has
    others. An endpoint gets those that are not at the protocol's default: its own defaults may
    differ, and `teacher.extra_body` can set them.
    """

    k: Count = 5
    """Samples per question; they vote on its answer."""
    temperature: NotNegative = 0.7
    """Sampling temperature; above 0 for k > 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: share of the probability that is sampled from."""
    top_k: NotNegativeCount = 0
    """Sample from the so many likeliest tokens alone; 0: from all."""
    min_p: Share = 0.0
    """Leave out tokens below this share of the likeliest one's probability; 0: none."""
    repetition_penalty: Positive = 1.0
    """Divides the scores of tokens that stand in the text or its prompt already; 1: off."""
    max_tokens: Count = 256
    """Tokens of one sample; raise it where samples are cut before their answer."""
    stop: tuple[str, ...] = ()
    """Texts that end a sample."""
    adaptive: AdaptiveRecipe | None = None
    """Fewer than k samples where they agree; null: k of each question."""

    @model_validator(mode="after")
    def _waves(self):
        if self.adaptive is None:
            return self
        if self.k < 3:
            raise ValueError(
                f"adaptive: {self.k} samples are too few to save any; raise k to 3 or more, or"
                " leave adaptive out"
            )
        if self.adaptive.rule == "window" and self.adaptive.window >= self.k:
            raise ValueError(
                f"adaptive.window ({self.adaptive.window}) must be below k ({self.k}): the first"
                " window would be all samples"
            )
        return self


class GenerationRecipe(Section):
    """How the teacher is asked.

    The keys set the requests in flight, the retries, and how often finished rows reach the disk.
    """

    actors: Count = 1
    """Ray Data actors that ask the teacher."""
    actor: Resources = Resources()
    """What one of them takes of the cluster."""
    requests_in_flight: Count = 64
    """Requests that an actor has open at once; raise it while the teacher idles."""
    questions_per_request: Count = 1
    """Questions in one request to a served teacher."""
    attempts: Count = 4
    """How often one request is tried before its rows end as `failed`, while others are answered."""
    retry_minutes: Positive = 10.0
    """Minutes that an outage is waited through: when no request is answered. Then asking stops."""
    backoff_s: NotNegative = 0.5
    """Seconds before the second attempt; they double with each further one."""
    request_timeout_s: Positive = 600.0
    """Seconds until a request has failed."""
    rows_per_block: Count = 64
    """Questions that an actor takes at a time; each row is written as soon as it is answered. From
    a quarter of a million questions on, a block is larger."""
    max_failed_share: Share = 0.5
    """Stop before training when a larger share of a split's questions has failed; 1: never."""


class VoteRecipe(Section):
    """Self-consistency: the samples vote on the answer.

    The keys decide cases that the paper does not name.
    """

    incomplete: Literal["failed", "vote"] = "failed"
    """Fewer than k samples came back: ask again in the next run, or vote over them."""
    truncated: Literal["abstain", "vote"] = "abstain"
    """Whether a sample that was cut by max_tokens votes."""
    tie: Literal["no_consensus", "first"] = "no_consensus"
    """A tie: no vote, or the answer that came first."""
