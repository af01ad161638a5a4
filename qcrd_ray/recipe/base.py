"""The building blocks of the recipe's sections: base class, bounded numbers, resources."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1, strict=True)]  # strict: YAML's `true` is not 1
NotNegativeCount = Annotated[int, Field(ge=0, strict=True)]


class Section(BaseModel):
    """A part of the recipe: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it may be a password
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class Resources(Section):
    """What one process takes of one node. Ray schedules by it, and does not enforce it."""

    cpus: NotNegative = 1.0
    """CPU cores."""
    gpus: NotNegative = 0.0
    """GPUs; a fraction shares one GPU among processes."""
    resources: dict[str, NotNegative] = Field(default={})
    """Ray's custom resources, which place it on a group of nodes: {trainer: 0.001}."""

    @property
    def bundle(self) -> dict[str, float]:
        """The same as a bundle of a placement group, without zeros: {"CPU": 1.0, "GPU": 1.0}."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in amounts.items() if amount > 0}

    @property
    def options(self) -> dict[str, Any]:
        """The same as options of an actor or a task: ``actor.options(**resources.options)``."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": self.resources}

    @property
    def cores(self) -> int:
        """How many threads the process should start."""
        return max(1, int(self.cpus))
