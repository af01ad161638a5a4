"""The student folder: the result of a run, in Hugging Face form, with all that serving it needs.

config.json, model.safetensors, tokenizer*   for transformers' auto classes
*.py                                         the model's own code, if the recipe trusts it
generation_config.json                       greedy, with room for the longest target
task.json                                    how questions are written and answers are read
README.md                                    the model card
discriminator/                               the model that scored rationales, with its
                                             tokenizer; a finetuned student has none
judge/                                       what weighs the votes of the student's samples, if the
                                             run has trained one; with base/, the model that the
                                             student was trained from, if it asks that one too
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError
from transformers import GenerationConfig

from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.models.card import render_card
from qcrd_ray.models.names import fingerprint
from qcrd_ray.models.pretrained import (
    check_student,
    check_weights,
    custom_code_files,
    read_config,
    read_tokenizer,
)
from qcrd_ray.recipe import Recipe, TaskRecipe
from qcrd_ray.recipe.judge import EvidenceName
from qcrd_ray.runs.files import atomic_folder, write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import Results
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import Task

TASK_FILE = "task.json"
DISCRIMINATOR = "discriminator"
JUDGE, BASE = "judge", "base"
# a plain fast tokenizer also gives token_type_ids, which `generate` refuses
MODEL_INPUTS = ["input_ids", "attention_mask"]
PLACEHOLDER = "Write a question here."


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFolder:
    """The judge of a student folder, and how the samples are drawn that it has learnt to judge.

    Its confidence is calibrated for votes of so many ``samples`` at this ``temperature`` and
    ``top_p``. ``inputs`` are those of the recipe's `judge.inputs`.
    """

    path: Path
    inputs: tuple[EvidenceName, ...]
    samples: int
    temperature: float
    top_p: float

    @classmethod
    def open(cls, path: Path, *, trust_remote_code: bool = False) -> JudgeFolder:
        """Read and check ``path``, without its weights. Raises UserError."""
        try:
            settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
            judge = cls(
                path=path,
                inputs=tuple(settings["inputs"]),
                samples=settings["samples"],
                temperature=settings["temperature"],
                top_p=settings["top_p"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path / 'config.json'} is damaged ({error!r}); export the student again with"
                " `qcrd evaluate`"
            ) from error
        if judge.base is not None:
            check_student(judge.base, trust_remote_code=trust_remote_code)
        return judge

    @property
    def base(self) -> Path | None:
        """The model that the student was trained from, where the judge asks it."""
        return self.path / BASE if "base" in self.inputs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFolder:
    """A student folder read back.

    ``facts`` is the content of task.json; ``discriminator`` and ``judge`` are None where there is
    none.
    """

    path: Path
    task: Task
    task_recipe: TaskRecipe
    facts: Mapping[str, Any]
    discriminator: Path | None
    judge: JudgeFolder | None = None
    trust_remote_code: bool = False

    @classmethod
    def open(
        cls, path: str | Path, *, trust_remote_code: bool = False, trust_task: bool = False
    ) -> StudentFolder:
        """Read and check a student folder, of its weights the headers. It runs no code of it.

        Raises:
            UserError: there is no such folder, it is no student folder, its model and tokenizer do
                not belong together, its weights are missing or damaged, its model has code of its
                own and ``trust_remote_code`` is off, or its task is a module of its own and
                ``trust_task`` is off. `qcrd predict` never turns the first on, `qcrd serve` only by
                its key.
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
            task_recipe = TaskRecipe.model_validate(facts["task"])
            if ":" in task_recipe.kind and not trust_task:
                raise UserError(
                    f"this student's task is the class {task_recipe.kind}, whose module would be"
                    " imported, from the current folder as well. Read it, and say --trust-task"
                    " (serve.trust_task: true in a file)"
                )
            task = build_task(task_recipe)
            for key in ("max_input_tokens", "max_target_tokens", "example"):
                facts[key]
            custom_code = facts.get("custom_code", [])
        except UserError as error:  # a task of one's own that is not trusted, or not here
            raise UserError(f"{file}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
            raise UserError(
                f"{file} is damaged ({reason}); export the student again with `qcrd evaluate`"
            ) from error
        if custom_code and not trust_remote_code:
            # transformers might take the library's model of that type in its place, silently
            raise UserError(
                f"{path}: this student has code of its own ({', '.join(custom_code)}). Read it, and"
                " let the endpoint run it by serve.trust_remote_code (qcrd serve --set"
                " trust_remote_code=true), or load the folder by transformers with"
                " trust_remote_code=True; qcrd predict runs no such code"
            )
        check_student(path, trust_remote_code=trust_remote_code)
        discriminator, judge = path / DISCRIMINATOR, path / JUDGE
        if not any(path.glob("*.safetensors")):
            raise UserError(
                f"{path} holds no weights (model.safetensors); copy the folder again, or export the"
                " student again with `qcrd evaluate`"
            )
        check_weights(discriminator)
        check_weights(judge)
        return cls(
            path=path,
            task=task,
            task_recipe=task_recipe,
            facts=facts,
            discriminator=discriminator if discriminator.is_dir() else None,
            judge=(
                JudgeFolder.open(judge, trust_remote_code=trust_remote_code)
                if judge.is_dir()
                else None
            ),
            trust_remote_code=trust_remote_code,
        )


def export_student(recipe: Recipe, folder: RunFolder, *, results: Results) -> Path:
    """Write the best student of a finished training to the run folder's student/.

    The folder appears whole or not at all. Exporting the same weights again renews it; other
    weights are never overwritten.

    Args:
        results: of the evaluation, for the card.

    Raises:
        UserError: nothing has been trained, or no judge where the recipe asks for one; student/
            holds something that this run's training did not write; or the model's own code is not
            in the trained folder.
    """
    best = folder.student_training(recipe) / "best"
    if not (best / "config.json").is_file():
        raise UserError(f"there is no trained student in {best}: run `qcrd train` first")
    _check_place(folder.student, best)
    trust = recipe.student.trust_remote_code
    facts = _facts(recipe, folder, best)
    tokenizer = read_tokenizer(best, trust_remote_code=trust)
    tokenizer.model_max_length = recipe.student.max_input_tokens
    tokenizer.model_input_names = MODEL_INPUTS
    if facts["architecture"] == "decoder-only":  # it reads what it has generated as well
        tokenizer.model_max_length += recipe.student.max_target_tokens
    with atomic_folder(folder.student) as writing:
        shutil.copytree(best, writing, dirs_exist_ok=True)
        tokenizer.save_pretrained(writing)
        _write_generation_config(
            writing, max_new_tokens=recipe.student.max_target_tokens, pad=tokenizer.pad_token_id
        )
        if recipe.judge.samples:
            _copy_judge(folder, best, writing / JUDGE)
        write_text(writing / TASK_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        card = render_card(
            recipe,
            folder,
            results=results,
            task=facts,
            discriminator=(writing / DISCRIMINATOR).is_dir(),
        )
        write_text(writing / "README.md", card)
        # check it before it appears
        StudentFolder.open(writing, trust_remote_code=trust, trust_task=True)
    return folder.student


def _check_place(student: Path, best: Path) -> None:
    """Refuse to overwrite a folder that is not an earlier export of the same weights."""
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


def _copy_judge(folder: RunFolder, best: Path, target: Path) -> None:
    """Copy the judge that was trained on samples of ``best``, and the base if it asks that one."""
    judges = best.parent / "judges"
    quality = judges / "quality.json"  # written last
    if not quality.is_file() or json.loads(quality.read_text())["student"] != fingerprint(best):
        raise UserError(
            f"judge: {judges} holds no judge of this student: run `qcrd train` first, or set"
            " judge.samples to 0"
        )
    shutil.copytree(judges / "judge", target)
    if "base" in json.loads((target / "config.json").read_text())["inputs"]:
        shutil.copytree(folder.root / "train" / "start", target / BASE)


def _write_generation_config(folder: Path, *, max_new_tokens: int, pad: Any) -> None:
    """Make `generate` without arguments greedy, up to the longest target.

    Token ids stay as the model has them; ``pad`` is for a model that has none.
    """
    config = GenerationConfig.from_pretrained(folder)
    ids = {
        name: getattr(config, name)
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id")
    }
    ids["pad_token_id"] = pad if ids["pad_token_id"] is None else ids["pad_token_id"]
    GenerationConfig(**ids, do_sample=False, max_new_tokens=max_new_tokens).save_pretrained(folder)


def _facts(recipe: Recipe, folder: RunFolder, best: Path) -> dict[str, Any]:
    """The content of task.json.

    `task` rebuilds the task; `example` is a question as a client sends it and as the student reads
    it; `custom_code` names the Python files without which the model cannot be loaded.
    """
    task = build_task(recipe.task)
    question = _example(recipe, folder, task)
    config = read_config(best, trust_remote_code=recipe.student.trust_remote_code)
    return {
        **task.describe(),
        "task": recipe.task.model_dump(mode="json"),
        "architecture": "encoder-decoder" if config.is_encoder_decoder else "decoder-only",
        "custom_code": _custom_code(recipe, best),
        "max_input_tokens": recipe.student.max_input_tokens,
        "max_target_tokens": recipe.student.max_target_tokens,
        "example": {
            "question": question.question,
            "choices": list(question.choices),
            "input": task.student_input(question),
        },
        "exported_from": fingerprint(best),
    }


def _custom_code(recipe: Recipe, best: Path) -> list[str]:
    """The model's own code files, which transformers has saved beside its weights.

    Without ``student.trust_remote_code`` none of them ran in training, and none is needed.
    """
    if not recipe.student.trust_remote_code:
        return []
    files = custom_code_files(read_config(best, trust_remote_code=True))
    if missing := [file for file in files if not (best / file).is_file()]:
        raise UserError(
            f"student.model: {best}/config.json names code (auto_map) that is not in that folder:"
            f" {', '.join(missing)}. The exported student could not be loaded without it. Train"
            " from a model folder that holds its own code"
        )
    return files


def _example(recipe: Recipe, folder: RunFolder, task: Task) -> Question:
    """A question to show: a few-shot example, a generated one, or one of the task's kind.

    Never a question out of the user's files, which may be private.
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
    # a task of one's own need not build on ours
    return getattr(task, "EXAMPLE", None) or Question(id="example", question=PLACEHOLDER)
