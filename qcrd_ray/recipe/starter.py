"""`qcrd init`: a recipe of some thirty lines to fill in; `--full` writes every key (`template`)."""

from __future__ import annotations

from typing import Literal

from qcrd_ray.recipe.task import KINDS

TeacherKind = Literal["serve", "openai", "recording"]
StudentKind = Literal["t5", "causal"]

_TEACHERS: dict[TeacherKind, str] = {
    "serve": """\
teacher:  # a model that vLLM serves here, on your GPUs or CPUs
  source: serve
  model: Qwen/Qwen2.5-7B-Instruct
  max_replicas: 1
""",
    "openai": """\
teacher:  # an endpoint that somebody else runs; its key is in the variable OPENAI_API_KEY
  source: openai
  base_url: https://api.openai.com/v1
  model: gpt-4o-mini
  max_spent_tokens: 2000000  # then asking stops, and goes on with a higher limit
""",
    "recording": """\
teacher:  # texts that you have already: id and completion, several rows a question
  source: recording
  path: data/completions.jsonl
""",
}
_STUDENTS: dict[StudentKind, str] = {
    "t5": """\
student:  # an encoder-decoder of the T5 family
  model: google/t5-v1_1-base
""",
    "causal": """\
student:  # a decoder-only model (Llama, Qwen), asked in its chat template
  model: Qwen/Qwen2.5-0.5B-Instruct
""",
}
_COLUMNS = {
    "multiple_choice": "id, question, choices (a list), answer",
    "nli": "id, question (premise and hypothesis), answer (entailment, neutral, contradiction)",
    "yes_no": "id, question, answer (yes or no)",
    "short_text": "id, question, answer (a text, or a list of them)",
}


def render(
    *, teacher: TeacherKind, task: str, student: StudentKind, name: str = "recipe.yaml"
) -> str:
    """The text of a recipe that is valid as it stands; ``task`` is a kind, or a class of one's own.

    A task that is none is refused when the recipe is read.
    """
    return f"""\
# A recipe for `qcrd run {name}`. `qcrd init --full` writes every key with its default.
name: my-run
run: runs/my-run

task:
  kind: {task}  # {", ".join(KINDS)}, or my_module:MyTask

# Rows of {_COLUMNS.get(task, "id, question, answer")}.
# .jsonl, .json, .csv, .tsv, .parquet, or `dataset: owner/name` with `split`. Other columns:
# `columns: {{question: Body}}`
data:
{_data(task)}
{_TEACHERS[teacher]}
sampling:
  k: 5  # samples a question, which vote
  max_tokens: 256  # of one sample

{_STUDENTS[student]}  max_input_tokens: {512 if student == "t5" else 768}
  max_target_tokens: 256

train:
  rounds: 10
  batch_size: 64
  learning_rate: {"5.0e-5" if student == "t5" else "1.0e-5"}
  worker: {{gpus: 0}}  # 1: train on a GPU
"""


def _data(task: str) -> str:
    if task == "word_problems":  # the one kind that makes its questions itself
        return """\
  train: {generate: 800, seed: 1}
  validation: {generate: 100, seed: 2}
  test: {generate: 300, seed: 3}
"""
    return """\
  train: {path: data/train.jsonl}
  validation: {path: data/validation.jsonl}
  test: {path: data/test.jsonl}
"""
