"""What a whole run takes: the figures of small runs, multiplied by its size.

A stage is as fast as its replicas or workers are many, which is what more of them can give at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from qcrd_ray import pipeline, serving
from qcrd_ray.cluster.resources import Bundle
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.plan.figures import EVALUATION, RATIONALES, Figures, Size, Training, shape_of
from qcrd_ray.recipe import Recipe
from qcrd_ray.teacher.serve import replica_bundles
from qcrd_ray.training import job
from qcrd_ray.training.dataset import rounds_of


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Money, in any currency; 0: it costs nothing, or nobody knows."""

    gpu_hour: float = 0.0
    million_tokens_in: float = 0.0  # of the teacher
    million_tokens_out: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """One stage: what it does, its seconds, and the GPUs that it holds meanwhile."""

    name: str
    work: str
    seconds: float
    gpus: float = 0.0

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.gpus * self.seconds / 3600.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A whole run."""

    stages: list[StageEstimate]
    tokens_in: float
    tokens_out: float

    @property
    def seconds(self) -> float:
        """From the start to the report."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def gpu_hours(self) -> float:
        """Of all stages."""
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def bottleneck(self) -> StageEstimate:
        """The stage that takes longest."""
        return max(self.stages, key=lambda stage: stage.seconds)

    def cost(self, prices: Prices) -> float:
        """Tokens and GPU hours at ``prices``."""
        return (
            self.gpu_hours * prices.gpu_hour
            + self.tokens_in / 1e6 * prices.million_tokens_in
            + self.tokens_out / 1e6 * prices.million_tokens_out
        )


def estimate(recipe: Recipe, size: Size, figures: Figures) -> Estimate:
    """What a run of ``recipe`` takes. Ray must be connected where the accelerator is `auto`."""
    units, shape, gpus = size.units(recipe), shape_of(recipe), gpus_of(recipe)
    faster = {name: figures.shape[name] / count for name, count in shape.items()}
    more_samples = recipe.sampling.k / figures.k
    stages = []
    for name, stage in figures.stages.items():
        if name == RATIONALES:
            stage = replace(stage, unit=stage.unit * more_samples * faster["replicas"])
        elif name == EVALUATION:
            stage = replace(stage, unit=stage.unit * faster["answering"])
        count = units.get(name, 0)
        stages.append(
            StageEstimate(
                name=name,
                work=f"{count:,} questions" if count else "",
                seconds=stage.seconds(count),
                gpus=gpus.get(name, 0.0),
            )
        )
    trainings = [
        _training(recipe, name, size, each, faster["workers"])
        for name, each in figures.training.items()
    ]
    after = next(i for i, stage in enumerate(stages) if stage.name == RATIONALES) + 1
    stages[after:after] = [replace(each, gpus=gpus[each.name]) for each in trainings]
    asked = units[RATIONALES]
    return Estimate(
        stages=stages,
        tokens_in=asked * figures.tokens_in,
        tokens_out=asked * figures.tokens_out * more_samples,
    )


def changes(recipe: Recipe, size: Size, figures: Figures) -> Mapping[str, Estimate]:
    """The same run with twice as many samples, replicas and workers, one after the other."""
    sampling = recipe.sampling.model_copy(update={"k": 2 * recipe.sampling.k})
    workers = recipe.train.model_copy(update={"workers": 2 * recipe.train.workers})
    changed = {
        f"sampling.k={sampling.k}": recipe.model_copy(update={"sampling": sampling}),
        f"train.workers={workers.workers}": recipe.model_copy(update={"train": workers}),
    }
    if recipe.teacher.source == "serve":
        replicas = 2 * recipe.teacher.max_replicas
        teacher = recipe.teacher.model_copy(update={"max_replicas": replicas})
        changed[f"teacher.max_replicas={replicas}"] = recipe.model_copy(update={"teacher": teacher})
    return {name: estimate(other, size, figures) for name, other in changed.items()}


def _training(
    recipe: Recipe, name: str, size: Size, price: Training, faster: float
) -> StageEstimate:
    questions, held = size.questions["train"], size.questions["validation"]
    rounds = rounds_of(recipe, questions)
    train, judge = recipe.train, recipe.discriminator
    read = min(rounds.steps_per_round * rounds.batch_size, questions)
    judge_steps = judge.pretrain_steps + rounds.count * judge.steps_per_round
    validations = -(-rounds.count // train.validate_.every_rounds)
    validated = min(train.validate_.max_questions or held, held)
    shared = (
        rounds.total_steps * price.step
        + rounds.count * read * price.question
        + judge_steps * price.judge_step
    )
    alone = price.start + rounds.count * price.round
    return StageEstimate(
        name=name,
        work=f"{rounds.total_steps:,} steps of {rounds.batch_size}",
        seconds=alone + shared * faster + validations * validated * price.validated,
    )


def gpus_of(recipe: Recipe) -> dict[str, float]:
    """The GPUs that each stage holds, by its name. A teacher has its most replicas.

    Ray must be connected where the accelerator is `auto`.
    """
    teacher = 0.0
    if recipe.teacher.source == "serve":
        teacher = recipe.teacher.max_replicas * _gpus(replica_bundles(recipe.teacher))
    trainings = {
        name: _gpus(job.bundles(recipe, [OBJECTIVES[name]])) for name in pipeline.objectives(recipe)
    }
    answering = _gpus([recipe.evaluate.worker.bundle] * recipe.evaluate.workers)
    return trainings | {
        RATIONALES: teacher,
        "judge": answering,
        "self-training": _gpus(job.bundles(recipe, [])),
        EVALUATION: answering,
        "serving": _gpus(serving.bundles(recipe.serve)),
    }


def _gpus(bundles: Iterable[Bundle]) -> float:
    return sum(bundle.get("GPU", 0.0) for bundle in bundles)
