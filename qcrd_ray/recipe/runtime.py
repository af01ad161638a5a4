"""``ray``: the cluster that a run works on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from qcrd_ray.recipe.base import Count, NotNegative, Positive, Resources, Section


class RayRecipe(Section):
    """Which Ray. `local` starts one on this machine; `auto` joins the one that the environment
    names.
    """

    address: str = Field(
        "auto",
        description="auto (join the running cluster, else start a local one), local, or an address",
    )
    num_cpus: Count | None = Field(
        None, description="logical CPUs of a local Ray; none: at least 8, so that every stage fits"
    )
    schedule_timeout_s: Positive = Field(
        300.0,
        description="how long a stage waits for its resources before it names what is missing",
    )


# MERGED recipe.serving: ``serve``: the endpoint that answers with the student.


class ServingRecipe(Section):
    """The student's endpoint. ``replicas`` are the fewest; ``max_replicas`` above them lets Ray
    Serve add more under load.
    """

    host: str = Field("127.0.0.1", description="anything but the loopback wants a key")
    port: Annotated[int, Field(ge=0, le=65_535)] = 8_000
    api_key_env: str = Field(
        "QCRD_API_KEY",
        description="the variable that holds the bearer key which callers must send; unset = none",
    )
    api_key_file: str | None = Field(
        None, description="a file that holds the key; it goes before the variable"
    )
    engine: Literal["auto", "transformers", "ctranslate2", "vllm"] = Field(
        "auto", description="auto = what fits the model"
    )
    model_name: str = Field(
        "student",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="what OpenAI's clients call the student",
    )
    replicas: Count = 1
    max_replicas: Count | None = Field(
        None, description="none: as many as replicas, no autoscaling"
    )
    replica: Resources = Resources()
    max_batch_size: Count = 32
    batch_wait_s: NotNegative = 0.005
    max_queued_requests: Count = Field(
        1_000, description="per proxy; beyond them: 503 with Retry-After"
    )
    request_timeout_s: Positive = 120.0
    max_body_bytes: Count = 1 << 20
    max_questions: Count = Field(64, description="in one request; each sample of a question counts")
    max_output_tokens: Count | None = Field(
        None, description="none: what the student was trained to write"
    )

    @model_validator(mode="after")
    def _replicas(self):
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below replicas ({self.replicas})"
            )
        return self


# MERGED recipe.tracking: ``tracking``: who else is told a training's numbers.


class TrackingRecipe(Section):
    """Where a training's numbers go besides metrics.jsonl and TensorBoard, which are always
    written.
    """

    mlflow: str | None = Field(
        None,
        description=(
            "an MLflow tracking URI (needs the mlflow or mlflow-skinny package); none: not used"
        ),
    )
    experiment: str = Field("qcrd", description="the MLflow experiment")
