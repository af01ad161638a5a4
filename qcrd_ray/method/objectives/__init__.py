"""The objectives by name. The next one is a file here and a line in :data:`OBJECTIVES`."""

from __future__ import annotations

from qcrd_ray.method.objectives.base import (
    Forward,
    Objective,
    ObjectiveConfig,
    Targets,
    total_counts,
)
from qcrd_ray.method.objectives.distillation import (
    Distilling,
    Finetune,
    MutualInformation,
    SingleTask,
)
from qcrd_ray.method.objectives.preference import Dpo, OrpoDistill, Redi
from qcrd_ray.method.objectives.qcrd import Qcrd

OBJECTIVES: dict[str, type[Objective]] = {
    "qcrd": Qcrd,
    "finetune": Finetune,
    "single_task": SingleTask,
    "dss": Distilling,
    "mi": MutualInformation,
    "orpo_distill": OrpoDistill,
    "redi": Redi,
    "dpo": Dpo,
}


def build_objective(config: ObjectiveConfig, *, sft: bool = False) -> Objective:
    """The objective that ``config.name`` names; ``sft``: that of its rounds of fine-tuning."""
    return OBJECTIVES[config.name](config, sft=sft)


__all__ = [
    "OBJECTIVES",
    "Forward",
    "Objective",
    "ObjectiveConfig",
    "Targets",
    "build_objective",
    "total_counts",
]
