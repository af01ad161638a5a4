"""A run folder as generation leaves it, small and synthetic: word problems with right and wrong
rationales, five a question.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.records import (
    QUESTION_SCHEMA,
    RATIONALE_SET_SCHEMA,
    Completion,
    Outcome,
    RationaleSet,
    Role,
)
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks.word_problems import generate

BASE = {
    "name": "tiny",
    "run": "/nowhere",
    "task": {"kind": "word_problems"},
    "data": {"train": {"generate": 24}, "validation": {"generate": 8}, "test": {"generate": 8}},
    "teacher": {"source": "recording", "path": "none.jsonl"},
    "student": {
        "scratch": {"d_model": 32, "d_ff": 64, "layers": 1, "heads": 2, "vocabulary": 320},
        "dropout": 0.0,
        "max_input_tokens": 96,
        "max_target_tokens": 24,
    },
    "discriminator": {
        "hidden": 16,
        "dropout": 0.0,
        "pretrain_steps": 3,
        "steps_per_round": 2,
        "batch_size": 6,
        "max_tokens": 128,
    },
    "negatives": {"lag": 1, "batch_size": 32, "sampler": {"cpus": 0.5}, "wait_timeout_s": 120},
    "train": {
        "rounds": 2,
        "round": {"unit": "steps", "size": 3},
        "batch_size": 6,
        "workers": 2,
        "worker": {"cpus": 0.5},
        "learning_rate": 1e-3,
        "schedule": "constant",
        "validate": {"max_questions": 6},
    },
}


def tiny_recipe(**changes) -> Recipe:
    """The recipe above with dotted changes: ``tiny_recipe(**{"train.workers": 1})``."""
    tree = _copy(BASE)
    for key, value in changes.items():
        *path, last = key.split(".")
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
        branch[last] = value
    return Recipe.model_validate(tree)


def write_run(root: Path, *, questions: int = 24, validation: int = 8) -> RunFolder:
    """Questions and rationales in ``root``, as the stages before training leave them."""
    folder = RunFolder(root)
    rows = folder.rationales("train") / "rows"
    rows.mkdir(parents=True)
    sets = [
        rationale_set(question, i).row() for i, question in enumerate(generate(questions, seed=1))
    ]
    pq.write_table(pa.Table.from_pylist(sets, schema=RATIONALE_SET_SCHEMA), rows / "part-0.parquet")
    folder.questions("validation").parent.mkdir(parents=True)
    asked = [
        {
            "id": q.id,
            "question": q.question,
            "choices": [],
            "answer": q.answer,
            "rationale": q.rationale,
        }
        for q in generate(validation, seed=2)
    ]
    pq.write_table(
        pa.Table.from_pylist(asked, schema=QUESTION_SCHEMA), folder.questions("validation")
    )
    return folder


def rationale_set(question, number: int) -> RationaleSet:
    """Three right completions (two of them alike), two wrong ones on every other question."""
    wrong = str(int(question.answer) + 1)
    right = [(f"{question.rationale}", question.answer)] * 2 + [
        (f"Let us see. {question.rationale}", question.answer)
    ]
    others = (
        [("I guess.", wrong), ("Perhaps more.", wrong)]
        if number % 2 == 0
        else [(question.rationale, question.answer)] * 2
    )
    completions = [
        Completion(
            text=text,
            rationale=text,
            answer=answer,
            role=Role.POSITIVE if answer == question.answer else Role.NEGATIVE,
        )
        for text, answer in [*right, *others]
    ]
    return RationaleSet(
        id=f"set-{question.id}",
        question_id=question.id,
        question=question.question,
        gold=question.answer,
        completions=tuple(completions),
        outcome=Outcome.ACCEPTED,
        vote=question.answer,
        vote_share=0.6,
    )


def _copy(tree):
    return (
        {name: _copy(branch) for name, branch in tree.items()} if isinstance(tree, dict) else tree
    )
