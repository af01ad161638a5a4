"""``tracking``: who else is told a training's numbers."""

from __future__ import annotations

from pydantic import Field

from qcrd_ray.recipe.sections import Section


class TrackingRecipe(Section):
    """Where a training's numbers go besides metrics.jsonl and TensorBoard, which are always written."""

    mlflow: str | None = Field(None, description="an MLflow tracking URI (needs the mlflow or mlflow-skinny package); none: not used")
    experiment: str = Field("qcrd", description="the MLflow experiment")
