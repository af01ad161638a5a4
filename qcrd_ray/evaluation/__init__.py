"""The evaluation stage: the accuracy of teacher, base, baselines and student on the test splits.

    evaluation/predictions.parquet   one row for each measured answer (PREDICTION_SCHEMA)
    evaluation/results.json          accuracies over them, with intervals (run.results.Results)
    evaluation/parts/                finished predictions by what they depend on: a second call
                                     computes only what has changed

It may import inference, models, tasks, run, cluster, data, recipe and method, and no other stage.
"""

from qcrd_ray.evaluation.predictions import Paired, pair
from qcrd_ray.evaluation.stage import evaluate

__all__ = ["Paired", "evaluate", "pair"]
