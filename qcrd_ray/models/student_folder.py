"""The student folder: what a run is for. An ordinary Hugging Face folder that says all that is
needed to use and to serve it.

config.json, model.safetensors, tokenizer*    for transformers' auto classes, which need nothing of
                                              ours
generation_config.json                        greedy, with room for the longest target
task.json                                     how questions are written and read
                                              (:class:`StudentFolder`)
README.md                                     the model card
discriminator/                                the model that scored rationales, with its tokenizer;
                                              not in a finetuned student's
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import ValidationError
from transformers import AutoTokenizer, GenerationConfig

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.models.card import render_card
from qcrd_ray.models.pretrained import check_student, fingerprint, read_config
from qcrd_ray.recipe import Recipe, TaskRecipe
from qcrd_ray.run.files import write_text
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.results import Results
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task

TASK_FILE = "task.json"
DISCRIMINATOR = "discriminator"
# a plain fast tokenizer also gives token_type_ids, which `generate` refuses
MODEL_INPUTS = ["input_ids", "attention_mask"]
PLACEHOLDER = "Write a question here."


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFolder:
    """A student folder read back. ``facts`` is the content of task.json; ``discriminator`` is None
    where there is none.
    """

    path: Path
    task: Task
    facts: Mapping
    discriminator: Path | None

    @classmethod
    def open(cls, path: str | Path) -> StudentFolder:
        """Read and check a student folder, without its weights.

        Raises:
            UserError: there is no such folder, it is no student folder, or its model and tokenizer
                do not belong together.
        """
        path = Path(path).expanduser().absolute()
        file = path / TASK_FILE
        if not path.is_dir():
            raise UserError(
                f"{path}: there is no such folder; give the student/ folder of a finished run"
            )
        if not file.is_file():
            raise UserError(
                f"{path} holds no {TASK_FILE}, so it is no student folder; give the student/ folder"
                " of a finished run"
            )
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            task = build_task(TaskRecipe.model_validate(facts["task"]))
            for key in ("max_input_tokens", "max_target_tokens", "example"):
                facts[key]
        except UserError as error:  # a task of the user's own, whose module is not here
            raise UserError(f"{file}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
            raise UserError(
                f"{file} is damaged ({reason}); export the student again with `qcrd evaluate`"
            ) from error
        check_student(path)
        discriminator = path / DISCRIMINATOR
        return cls(
            path=path,
            task=task,
            facts=facts,
            discriminator=discriminator if discriminator.is_dir() else None,
        )


def export_student(recipe: Recipe, folder: RunFolder, *, results: Results) -> Path:
    """Write the best student of a finished training to the run folder's student/, with the
    evaluation's ``results`` in its card.

    The folder appears whole or not at all. Exporting the same weights again renews it; other
    weights are never written over.

    Raises:
        UserError: nothing has been trained, or student/ holds something that this run's training
            did not make.
    """
    best = folder.training(recipe.objective.name) / "best"
    if not (best / "config.json").is_file():
        raise UserError(f"there is no trained student in {best}: run `qcrd train` first")
    _check_place(folder.student, best)
    writing = folder.student.with_name(f".{folder.student.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    shutil.copytree(best, writing)
    facts = _facts(recipe, folder, best)
    tokenizer = AutoTokenizer.from_pretrained(best)
    tokenizer.model_max_length, tokenizer.model_input_names = (
        recipe.student.max_input_tokens,
        MODEL_INPUTS,
    )
    if facts["architecture"] == "decoder-only":  # it reads what it has written as well
        tokenizer.model_max_length += recipe.student.max_target_tokens
    tokenizer.save_pretrained(writing)
    _write_generation_config(recipe, writing, pad=tokenizer.pad_token_id)
    write_text(writing / TASK_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    card = render_card(
        recipe,
        folder,
        results=results,
        task=facts,
        discriminator=(writing / DISCRIMINATOR).is_dir(),
    )
    write_text(writing / "README.md", card)
    StudentFolder.open(writing)  # what cannot be opened is not shown to anybody
    _replace(folder.student, writing)
    return folder.student


def _check_place(student: Path, best: Path) -> None:
    """Refuse to write over a folder that is not an earlier export of the same weights."""
    if not student.exists():
        return
    file = student / TASK_FILE
    exported = (
        json.loads(file.read_text(encoding="utf-8")).get("exported_from")
        if file.is_file()
        else None
    )
    if exported != fingerprint(best):
        raise UserError(
            f"{student} holds another student than the one in {best}: move it away or delete it,"
            " and export again"
        )


def _write_generation_config(recipe: Recipe, folder: Path, *, pad: int) -> None:
    """What `generate` does when it is told nothing: greedy, up to the longest target. Token ids
    stay as the model has them, and ``pad`` is for one that has none.
    """
    config = GenerationConfig.from_pretrained(folder)
    kept = {
        name: getattr(config, name)
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id")
    }
    kept["pad_token_id"] = pad if kept["pad_token_id"] is None else kept["pad_token_id"]
    GenerationConfig(
        **kept, do_sample=False, max_new_tokens=recipe.student.max_target_tokens
    ).save_pretrained(folder)


def _facts(recipe: Recipe, folder: RunFolder, best: Path) -> dict:
    """The content of task.json: `task` rebuilds the task, `example` is a question as a client sends
    it and as the student reads it.
    """
    task = build_task(recipe.task)
    question = _example(recipe, folder)
    return {
        **task.describe(),
        "task": recipe.task.model_dump(mode="json"),
        "architecture": (
            "encoder-decoder" if read_config(best).is_encoder_decoder else "decoder-only"
        ),
        "max_input_tokens": recipe.student.max_input_tokens,
        "max_target_tokens": recipe.student.max_target_tokens,
        "example": {
            "question": question.question,
            "choices": list(question.choices),
            "input": task.student_input(question),
        },
        "exported_from": fingerprint(best),
    }


def _example(recipe: Recipe, folder: RunFolder) -> Question:
    """A question to show: a few-shot example or a generated one. Never a question out of the user's
    files, which may be private.
    """
    if recipe.task.examples:
        return Question(
            id="example",
            question=recipe.task.examples[0].question,
            choices=recipe.task.examples[0].choices,
        )
    generated = folder.questions("train")
    if recipe.data.train.generate and generated.exists():
        row = pq.read_table(generated).slice(0, 1).to_pylist()[0]
        return Question.from_row({**row, "id": "example"})
    return Question(id="example", question=PLACEHOLDER)


def _replace(student: Path, writing: Path) -> None:
    """Put the new folder in the old one's place; a reader meets one of the two."""
    old = student.with_name(f".{student.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if student.exists():
        student.rename(old)
    writing.rename(student)
    shutil.rmtree(old, ignore_errors=True)
