"""``negatives``: the wrong rationales that the student learns from, and who makes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qcrd_ray.recipe.sections import Count, NotNegative, NotNegativeCount, Positive, Section


class NegativesRecipe(Section):
    """Where negatives come from: the teacher's minority, and the student of `lag` rounds ago; beyond the paper, positives with other
    numbers."""

    teacher: bool = True
    student: bool = True
    corrupted: NotNegativeCount = Field(0, description="how many a question: positives with one wrong step (after PORT, arXiv 2406.16061)")
    evolved: NotNegativeCount = Field(0, description="how many a question: positives for other numbers (after ECD, arXiv 2410.07513)")
    lag: Count | Literal["auto"] = Field("auto", description="rounds; auto = min(5, rounds // 5), at least 1")
    before_lag: Literal["oldest", "none"] = "oldest"
    per_question: Count = 1
    temperature: Positive = 1.5
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    right: Literal["keep", "drop", "positive"] = Field(
        "keep", description="student samples whose answer equals the label: negatives all the same (the paper), left out, or positives"
    )
    samplers: Count = 1
    cpus_per_sampler: NotNegative = 1.0
    gpus_per_sampler: NotNegative = 0.0
    resources_per_sampler: dict[str, float] = Field({})
    batch_size: Count = 64
    wait_timeout_s: Positive = 1800.0
