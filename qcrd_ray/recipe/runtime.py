"""``ray``, ``serve`` and ``tracking``: the cluster, the student's endpoint, experiment trackers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegative, Positive, Resources, Section
from qcrd_ray.recipe.credentials import VariableName, holds_credentials


class RayRecipe(Section):
    """The Ray cluster that the run works on."""

    address: str | None = None
    """null: the cluster that RAY_ADDRESS names, else a local one; `auto`: also one that runs on
    this machine; `local`; or an address.
    """
    num_cpus: Count | None = None
    """Logical CPUs of a local Ray; null: at least 8, so that every stage fits."""
    schedule_timeout_s: Positive = 300.0
    """Seconds that a stage waits for its resources before it names what is missing."""


class QuestionToTry(Section):
    """A question that the endpoint's page offers to whoever opens it."""

    question: str = Field(min_length=1)
    """The question's text."""
    choices: tuple[str, ...] = ()
    """The choices of a multiple-choice question."""


class ServingRecipe(Section):
    """The endpoint that answers with the student.

    A `max_replicas` above `replicas` lets Ray Serve add replicas under load.
    """

    host: str = "127.0.0.1"
    """IP address to listen on; one that others can reach needs a key."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    """Port to listen on; 0: a free one."""
    api_key_env: VariableName = "QCRD_API_KEY"
    """The variable that holds the key which callers must send; unset: no key."""
    api_key_file: str | None = None
    """A file that holds the key, on every node that serves; before the variable."""
    engine: Literal["auto", "transformers", "ctranslate2", "vllm"] = "auto"
    """What runs the model; auto: what fits it."""
    gpu_memory_utilization: Annotated[float | None, Field(gt=0.0, le=1.0)] = None
    """Share of a GPU's memory that vLLM takes; the discriminator and the judge need some of the
    rest. null: 0.9 of the replica's share of a GPU.
    """
    trust_remote_code: bool = False
    """Run Python code that comes with the student; only for one you trust."""
    trust_task: bool = False
    """Import the module of a student whose task is a class of its own; only for one you trust."""
    model_name: str = Field(default="student", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The model name that OpenAI clients ask for."""
    replicas: Count = 1
    """Replicas at the start, and the fewest."""
    max_replicas: Count | None = None
    """The most replicas under load; null: as many as `replicas`."""
    replica: Resources = Resources()
    """What one replica takes of the cluster."""
    max_batch_size: Count = 32
    """Requests that a replica answers together."""
    batch_wait_s: NotNegative = 0.0
    """Seconds that a request waits for others to be answered with. What comes while a batch is
    answered makes the next one anyway.
    """
    max_queued_requests: Count = 256
    """Requests that a replica has taken and not answered; more get 503 and Retry-After at once."""
    request_timeout_s: Positive = 120.0
    """Seconds until a request ends with 504."""
    max_body_bytes: Count = 1 << 20
    """Largest body of a request."""
    body_timeout_s: Positive = 10.0
    """Seconds within which a body must have come, else 408."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that callers may use beside localhost and IP addresses. Without a key no others are
    answered; with a key any are, unless some are given here.
    """
    max_questions: Count = 64
    """Questions in one request; each sample of a question counts."""
    max_output_tokens: Count | None = None
    """Tokens of one answer; null: what the student was trained to write."""
    examples: tuple[QuestionToTry, ...] = ()
    """Questions that the page offers; none: the recipe's few-shot examples, a generated question or
    one of the task's kind. Your data files are never shown.
    """

    @model_validator(mode="after")
    def _replicas(self):
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below replicas ({self.replicas})"
            )
        return self


class TrackingRecipe(Section):
    """Where a training's numbers go besides metrics.jsonl and TensorBoard.

    Those two are always written.
    """

    mlflow: str | None = None
    """An MLflow tracking URI (needs the mlflow or mlflow-skinny package); null: no MLflow."""
    experiment: str = "qcrd"
    """The MLflow experiment."""
    wandb: str | None = Field(default=None, pattern=r"^[^/\\#?%:]{1,128}$")
    """A project of Weights & Biases (needs the wandb package, which is configured by its own
    variables); null: none.
    """

    @model_validator(mode="after")
    def _password(self):
        if self.mlflow is not None and holds_credentials(self.mlflow):
            raise ValueError(
                "mlflow holds a password, which would stand in the run folder: put it into the"
                " environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or"
                " MLFLOW_TRACKING_TOKEN)"
            )
        return self
