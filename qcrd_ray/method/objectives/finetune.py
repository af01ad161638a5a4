"""The baseline: question to label, nothing else."""

from __future__ import annotations

from torch import Tensor

from qcrd_ray.method.collation import MicroBatch
from qcrd_ray.method.examples import Counts
from qcrd_ray.method.objectives.base import Forward, Objective


class Finetune(Objective):
    """L = L_pred, with weight 1."""

    def loss(self, batch: MicroBatch, forward: Forward, counts: Counts) -> tuple[Tensor, dict[str, Tensor]]:
        prediction, predictions = self.prediction(batch, forward.label)
        return prediction / max(1, counts.prediction), {"prediction": prediction, "predictions": predictions}
