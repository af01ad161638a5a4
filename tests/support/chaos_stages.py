"""The run that the chaos tests break: its recipe, its stages, and what each must have made."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.tasks.word_problems import generate

QUESTIONS, SEED = 240, 1
ROUNDS, STEPS = 4, 10  # of training, and of each round

# Eight requests in flight are 3.3 % of the questions: a kill may cost them, and no more.
RECIPE = f"""
name: chaos
task: {{kind: word_problems}}
data:
  train: {{generate: {QUESTIONS}, seed: {SEED}}}
  validation: {{generate: 12, seed: 2}}
  test: {{generate: 24, seed: 3}}
teacher: {{source: openai, model: a-model, max_spent_tokens: 10000000}}
sampling: {{k: 3}}
generation:
  actor: {{cpus: 0.5}}
  requests_in_flight: 8
  rows_per_block: 16
  backoff_s: 0.2
  request_timeout_s: 5
student:
  scratch: {{d_model: 32, d_ff: 64, layers: 1, heads: 2, vocabulary: 320}}
  max_input_tokens: 96
  max_target_tokens: 24
discriminator:
  hidden: 16
  pretrain_steps: 20
  steps_per_round: 4
  batch_size: 6
  max_tokens: 128
negatives: {{lag: 1, batch_size: 32, sampler: {{cpus: 0.5}}, wait_timeout_s: 240}}
train:
  rounds: {ROUNDS}
  round: {{unit: steps, size: {STEPS}}}
  batch_size: 8
  workers: 2
  worker: {{cpus: 0.5}}
  learning_rate: 0.001
  validate: {{max_questions: 8}}
evaluate: {{baselines: [], base: false}}
ray: {{address: local, num_cpus: 4}}
"""


@dataclass(frozen=True)
class Place:
    """A folder of one trial: the run folder `run`, and what its commands read and write beside."""

    home: Path

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.home / "run")

    @property
    def training(self) -> Path:
        return self.run.training("qcrd")

    @property
    def journals(self) -> list[Path]:
        """What generation writes answers to, until they are merged; the newest last."""
        files = (self.run.rationales("train") / "rows").glob("*/*.jsonl")
        return sorted(files, key=lambda file: file.stat().st_mtime_ns)

    @property
    def note(self) -> str:
        """What training does at the moment."""
        file = self.training / "progress.json"
        return json.loads(file.read_text())["note"] if file.exists() else ""

    @property
    def rounds(self) -> int:
        """How many checkpoints there are that a training could go on from."""
        return len(list((self.training / "checkpoints").glob("*/state.json")))

    def write_recipe(self, url: str) -> None:
        recipe = yaml.safe_load(RECIPE)
        recipe["run"], recipe["teacher"]["base_url"] = str(self.run.root), url
        (self.home / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@dataclass(frozen=True)
class Stage:
    """One command.

    ``begins_in`` is the stage whose finished folder it begins in, ``at_work`` whether it is at
    its own work, given a place and the words so far. ``made`` checks what it has made, and
    returns what must be the same in every run.
    """

    begins_in: str | None
    arguments: Callable[[Place], list[str | Path]]
    at_work: Callable[[Place, str], object]
    made: Callable[[Place], dict[str, Any]]

    def command(self, place: Place) -> list[str | Path]:
        return [sys.executable, "-m", "qcrd_ray.cli", *self.arguments(place)]


def _rows(place: Place) -> dict[str, Any]:
    """Every question once, with its outcome, its vote and its texts."""
    rows = place.run.read_rationales("train").to_pylist()
    assert len(rows) == len({row["question_id"] for row in rows}) == QUESTIONS, "a row is missing"
    manifest = json.loads((place.run.rationales("train") / "manifest.json").read_text())
    assert sum(manifest["outcomes"].values()) == manifest["rows"] == QUESTIONS, manifest["outcomes"]
    return {
        row["question_id"]: (
            row["outcome"],
            row["vote"],
            # half of a surrogate pair is no character, and is replaced
            [each["text"].removesuffix(" �") for each in row["completions"]],
        )
        for row in rows
    }


def _weights(place: Place) -> dict[str, Any]:
    """The best weights and every round's numbers; no round is missing and none is there twice."""
    home = place.training
    rows = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == list(range(ROUNDS)), "a gap, or a round twice"
    assert [row["step"] for row in rows] == [STEPS * (n + 1) for n in range(ROUNDS)]
    made = {
        "best": digest(home / "best" / "model.safetensors"),
        "discriminator": digest(home / "best" / "discriminator" / "model.safetensors"),
    }
    for row in rows:
        del row["seconds"]
        row["negatives"].pop("waited_s", None)
    return {**made, "rounds": rows}


def _measured(place: Place) -> dict[str, Any]:
    results = json.loads((place.run.evaluation / "results.json").read_text())
    for row in results["rows"]:
        row.pop("milliseconds", None)
    return {
        "rows": results["rows"],
        "student": digest(place.run.student / "model.safetensors"),
    }


def _predicted(place: Place) -> dict[str, Any]:
    answers = (place.home / "answers.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in answers]
    assert [row["row"] for row in rows] == list(range(1, PREDICTED + 1)), "a row is missing"
    return {"answers": rows}


def _compared(place: Place) -> dict[str, Any]:
    table = json.loads((place.run.root / "compare" / "all" / "table.json").read_text())
    return {"means": [each["means"] for each in table["measured"]]}


PREDICTED = 2_000  # questions of `qcrd predict`


def _predict(place: Place) -> list[str | Path]:
    questions = place.home / "questions.jsonl"
    if not questions.exists():
        asked = generate(PREDICTED, seed=5)
        questions.write_text(
            "".join(
                json.dumps({"id": str(number), "question": each.question}) + "\n"
                for number, each in enumerate(asked)
            )
        )
    answers = place.home / "answers.jsonl"
    return ["predict", place.run.student, questions, answers, "--batch-size", "16"]


def _recipe(*verb: str) -> Callable[[Place], list[str | Path]]:
    return lambda place: [verb[0], place.home / "recipe.yaml", *verb[1:]]


STAGES = {
    "generate": Stage(
        None,
        _recipe("generate"),
        lambda place, words: any(journal.stat().st_size for journal in place.journals),
        _rows,
    ),
    "train": Stage(
        "generate",
        _recipe("train"),
        lambda place, words: place.note and not (place.training / "result.json").exists(),
        _weights,
    ),
    "evaluate": Stage(
        "train", _recipe("evaluate"), lambda place, words: "evaluation " in words, _measured
    ),
    "predict": Stage("evaluate", _predict, lambda place, words: "predicting " in words, _predicted),
    "compare": Stage(
        "generate",
        _recipe("compare", "--methods", "finetune,dss", "--seeds", "1"),
        lambda place, words: "comparing " in words,
        _compared,
    ),
}


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def distance(ours: Path, theirs: Path) -> float:
    """The largest difference between two files of weights."""
    from safetensors.torch import load_file

    one, other = load_file(ours), load_file(theirs)
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)
