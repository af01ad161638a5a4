"""Run by test_predicting.py in a process of its own, to be killed: python predicted_file.py <ray
address> <student> <in> <out>.
"""

from __future__ import annotations

import sys

from qcrd_ray.cluster.resources import connect
from qcrd_ray.prediction.stage import PredictOptions, predict, prepare
from qcrd_ray.recipe import RayRecipe

if __name__ == "__main__":
    address, student, questions, answers = sys.argv[1:]
    connect(RayRecipe(address=address))
    predict(
        prepare(
            student, questions, answers, options=PredictOptions(rationale=True), rows_per_part=16
        )
    )
