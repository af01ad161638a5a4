"""The evaluation stage: how often teacher, base, baselines and student are right, on questions that
none of them was chosen by.

evaluation/predictions.parquet   one row for each answer that was measured (PREDICTION_SCHEMA)
evaluation/results.json          what is counted over them, with intervals
evaluation/parts/                finished predictions by what they depend on; a second call computes
                                 only what has changed
"""

from qcrd_ray.evaluation.predictions import (
    PREDICTION_SCHEMA,
    Paired,
    Prediction,
    mcnemar,
    pair,
    result_rows,
)
from qcrd_ray.evaluation.stage import evaluate
from qcrd_ray.run.results import markdown_table, render_table

__all__ = [
    "PREDICTION_SCHEMA",
    "Paired",
    "Prediction",
    "evaluate",
    "markdown_table",
    "mcnemar",
    "pair",
    "render_table",
    "result_rows",
]
