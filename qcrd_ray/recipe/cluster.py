"""``ray``: the cluster that a run works on."""

from __future__ import annotations

from pydantic import Field

from qcrd_ray.recipe.sections import Count, Positive, Section


class RayRecipe(Section):
    """Which Ray. `local` starts one on this machine; `auto` joins the one that the environment names."""

    address: str = Field("auto", description="auto (join the running cluster, else start a local one), local, or an address")
    num_cpus: Count | None = Field(None, description="logical CPUs of a local Ray; none: at least 8, so that every stage fits")
    schedule_timeout_s: Positive = Field(300.0, description="how long a stage waits for its resources before it names what is missing")
