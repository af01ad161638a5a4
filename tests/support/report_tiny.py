"""A run folder of known numbers, a part at a time: what a report of it must say can be counted by
hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from training_tiny import tiny_recipe

from qcrd_ray.data.records import (
    QUESTION_SCHEMA,
    RATIONALE_SET_SCHEMA,
    SCORED_RATIONALE_SCHEMA,
    Completion,
    Outcome,
    RationaleSet,
    Role,
)
from qcrd_ray.evaluation.predictions import PREDICTION_SCHEMA, Prediction, result_rows
from qcrd_ray.rationales.requests import REQUEST_SCHEMA
from qcrd_ray.recipe.file import dump_recipe
from qcrd_ray.runs.files import write_table
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_call
from qcrd_ray.tasks.spool import REJECTED_SCHEMA

EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
# (outcome, share of the vote, vote, how many such rows); the gold answer is always 7
ROWS = (
    (Outcome.ACCEPTED, 1.0, "7", 3),
    (Outcome.ACCEPTED, 0.6, "7", 1),
    (Outcome.ACCEPTED, 0.6, "8", 2),
    (Outcome.NO_CONSENSUS, 0.0, None, 4),
    (Outcome.UNPARSED, 0.0, None, 1),
    (Outcome.FAILED, 0.0, None, 2),
    (Outcome.REJECTED_INPUT, 0.0, None, 1),
)
REJECTED, PENDING = 5, 3


def begin(root: Path, **changes) -> RunFolder:
    """A folder with a recipe and one call, and nothing else."""
    folder = RunFolder(root)
    root.mkdir(parents=True, exist_ok=True)
    folder.recipe.write_text(dump_recipe(tiny_recipe(**changes)))
    folder.versions.write_text(json.dumps([describe_call(0)]))
    return folder


def add_rows(folder: RunFolder) -> None:
    """14 finished rows, 3 that are still to be asked, 5 that could not be read."""
    outcomes = [
        (outcome, share, vote) for outcome, share, vote, count in ROWS for _ in range(count)
    ]
    sets = [_set(number, *row).row() for number, row in enumerate(outcomes)]
    home = folder.rationales("train")
    write_table(
        pa.Table.from_pylist(sets, schema=RATIONALE_SET_SCHEMA), home / "rows" / "a-0.parquet"
    )
    asks = [
        {"id": str(i), "question_id": f"q{i}", "question": EVIL, "choices": [], "gold": "7"}
        for i in range(len(sets) + PENDING)
    ]
    write_table(
        pa.Table.from_pylist(asks, schema=REQUEST_SCHEMA), home / "requests/00000/00000.parquet"
    )
    rejected = [{"row": i, "id": "", "reason": "empty", "text": ""} for i in range(REJECTED)]
    write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), folder.rejected("train"))
    calls = [
        {
            **describe_call(0),
            "asked": 14,
            "retries": 0,
            "seconds": 2.0,
            "tokens_in": 100,
            "tokens_out": 60,
            "tokens_per_s": 30.0,
        }
    ] * 2
    (home / "manifest.json").write_text(json.dumps({"calls": calls}))


def add_training(
    folder: RunFolder,
    objective: str = "qcrd",
    *,
    rounds: int = 3,
    finished: bool = True,
    scores: bool = True,
) -> None:
    """Rounds with round numbers, and scores that fall from 1 in steps of a tenth."""
    home = folder.training(objective)
    home.mkdir(parents=True)
    rows = [_round(number, objective) for number in range(rounds)]
    (home / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if finished:
        result = {
            "best_round": 1,
            "rounds": rounds,
            "chosen_by": "mean",
            "questions_seen": 18 * rounds,
            "steps": 3 * rounds,
        }
        (home / "result.json").write_text(json.dumps(result))
    if scores and objective == "qcrd":
        kinds = ("teacher_positive", "teacher_minority", "student")
        for number in range(rounds):
            scored = [
                {
                    "question_id": f"q{i}",
                    "question": EVIL,
                    "scored_as": kinds[i % 3],
                    "text": f"{EVIL} {i}",
                    "score": 1 - i / 10,
                    "right": None,
                }
                for i in range(9)
            ]
            write_table(
                pa.Table.from_pylist(scored, schema=SCORED_RATIONALE_SCHEMA),
                home / "scores" / f"{number:05d}.parquet",
            )


JUDGE = {
    "judge.samples": 4,
    "judge.inputs": ["student", "label", "steps"],
    "judge.others": {"calculator": ["steps"]},
}
QUALITY = {"two_sided": 6, "spread": 0.3, "auc_within_question": 0.87, "calibration_error": 0.05}


def add_evaluation(folder: RunFolder, *, baseline: bool = True, judge: bool = False) -> None:
    """Ten test questions: the student's rationale head gets 0 to 6, its label head 0 to 2, the
    baseline 5 to 8. With a judge: the plain vote of four gets 0 to 5 and says 65 % of all ten, the
    judged vote 0 to 7 and says 95 % of these and 15 % of the others; the calculator is a coin.
    """
    right = {
        ("student", "rationale"): range(7),
        ("student", "label"): range(3),
        ("finetune", "label"): range(5, 9),
    }
    if judge:
        right |= {
            ("student", "vote of 4"): range(6),
            ("student", "judged vote of 4"): range(8),
            ("student", "judged vote of 4 (calculator)"): range(6),
            ("student", "best of 4"): range(7),
            ("student", "any of 4"): range(9),
        }
    confidences = {
        "vote of 4": [0.65] * 10,
        "judged vote of 4": [0.95 if i < 8 else 0.15 for i in range(10)],
    }
    predictions = [
        Prediction(
            name=name,
            head=head,
            split="test",
            question_id=f"t{i}",
            gold="7",
            text=f"{EVIL} {i}",
            answer="7" if i in got else "9",
            tokens=80 if "of 4" in head else 20,
            confidence=confidences[head][i] if head in confidences else None,
            milliseconds=8.0 if "of 4" in head else 0.5,
        )
        for (name, head), got in right.items()
        if baseline or name != "finetune"
        for i in range(10)
    ]
    write_table(
        pa.Table.from_pylist(
            [prediction.row() for prediction in predictions], schema=PREDICTION_SCHEMA
        ),
        folder.evaluation / "predictions.parquet",
    )
    results = {
        "rows": result_rows(predictions),
        "splits": {"test": {"measured": 10, "without_answer": 2, "rejected": 0}},
        "notes": ["the teacher is not measured: nobody asked it"],
    }
    if judge:
        coin = QUALITY | {"auc_within_question": 0.5}
        results["judges"] = {"student": {"test": {"judge": QUALITY, "calculator": coin}}}
    (folder.evaluation / "results.json").write_text(json.dumps(results))
    asked = [
        {
            "id": f"t{i}",
            "question": f"{EVIL} {i}",
            "choices": [EVIL],
            "answer": "7",
            "rationale": None,
        }
        for i in range(10)
    ]
    write_table(pa.Table.from_pylist(asked, schema=QUESTION_SCHEMA), folder.questions("test"))


def add_judges(folder: RunFolder) -> None:
    """Judges of 300 questions, a little worse there than on the test questions."""
    home = folder.training("qcrd") / "judges"
    home.mkdir()
    cross_fitted = QUALITY | {"auc_within_question": 0.86}
    trained = {
        "questions": 300,
        "samples": 4,
        "judges": {"judge": cross_fitted, "calculator": cross_fitted},
        "student": "a fingerprint",
        "seconds": 12.0,
    }
    (home / "quality.json").write_text(json.dumps(trained))


def whole_run(root: Path) -> RunFolder:
    """All of it."""
    folder = begin(root, **JUDGE)
    add_rows(folder)
    add_training(folder)
    add_training(folder, "finetune")
    add_judges(folder)
    add_evaluation(folder, judge=True)
    folder.seconds.write_text(json.dumps({"rationales": 30.0, "qcrd": 90.0}))
    return folder


def _set(number: int, outcome: Outcome, share: float, vote: str | None) -> RationaleSet:
    roles = (
        (Role.POSITIVE, Role.POSITIVE, Role.NEGATIVE)
        if outcome == Outcome.ACCEPTED
        else (Role.ABSTAINED,) * 3
    )
    asked = outcome not in (Outcome.FAILED, Outcome.REJECTED_INPUT)
    completions = (
        tuple(Completion(text=EVIL, role=role, tokens=10) for role in roles) if asked else ()
    )
    return RationaleSet(
        id=str(number),
        question_id=f"q{number}",
        question=EVIL,
        gold="7",
        completions=completions,
        outcome=outcome,
        vote=vote,
        vote_share=share,
        samples_asked=3 if asked else 0,
    )


def _round(number: int, objective: str) -> dict:
    student = {"prediction": 1.0 / (number + 1)}
    row = {
        "round": number,
        "step": 3 * (number + 1),
        "student": student,
        "seconds": {"student": 2.0, "validation": 1.0},
        "tokens": 100,
    }
    row["validation"] = {"label": 0.25, "mean": 0.25}
    if objective == "qcrd":
        student |= {
            "loss": 2.0,
            "l_pos": 0.5,
            "l_neg": -0.25,
            "active_fraction": 0.75,
            "score_positive": 0.9,
            "score_student_negative": 0.4,
        }
        row["discriminator"] = {"auc_teacher": 0.8, "auc_student": 0.6}
        row["validation"] = {"label": 0.25, "rationale": 0.5, "mean": 0.375}
    return row
