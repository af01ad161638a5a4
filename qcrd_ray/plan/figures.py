"""What a run took, stage by stage, as a start and a price for each unit of work.

A stage takes a start, whatever its size, and then as long as its units: questions asked, steps,
questions answered. Two runs of different sizes tell both. Training has more than one kind of unit,
and times each of them itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

from qcrd_ray.errors import UserError
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.results import RoundMetrics
from qcrd_ray.training.dataset import rounds_of
from qcrd_ray.training.metrics import read_metrics

RATIONALES, EVALUATION = "rationales", "evaluation"
MANIFEST = "*/manifest.json"  # of each split


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many questions each split of a run has, by its name."""

    questions: Mapping[str, int]

    def units(self, recipe: Recipe) -> dict[str, int]:
        """The units of work of each stage but training: the questions that it asks or answers."""
        tested = self.questions["test"] + self.questions.get("held_out", 0)
        asked = self.questions["train"]
        if recipe.evaluate.teacher_on_test:
            asked += self.questions["test"]
        return {
            RATIONALES: asked,
            "judge": self.questions["validation"],
            "self-training": self.questions.get("unlabelled", 0),
            EVALUATION: tested,
        }


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Seconds of a stage: at its start, and for each unit."""

    start: float
    unit: float = 0.0

    def seconds(self, units: float) -> float:
        """What the stage takes for so many units."""
        return self.start + self.unit * units


@dataclass(frozen=True, kw_only=True)
class Training:
    """Seconds of one objective's training.

    ``start`` is what no round takes; ``step`` a student's step; ``question`` what a question costs
    in a round beside its steps (negatives, scores, references); ``judge_step`` a step of the
    discriminator; ``validated`` a validation question; ``round`` what each round takes beside all
    these: its snapshot and its checkpoint.
    """

    start: float
    step: float
    question: float
    judge_step: float
    validated: float
    round: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a recipe's stages take on a cluster, with the tokens of a question.

    ``k`` and ``shape`` are those that it was measured with: samples of a question, and how many
    replicas and workers a stage had (:func:`shape_of`).
    """

    stages: dict[str, Stage]
    training: dict[str, Training]
    tokens_in: float  # of the teacher, a question
    tokens_out: float
    k: int
    shape: dict[str, int]

    @classmethod
    def measured(cls, recipe: Recipe, runs: Sequence[tuple[RunFolder, Size]]) -> Figures:
        """Figures of two finished runs of ``recipe``, the smaller one first."""
        (small, small_size), (large, large_size) = runs
        seconds = [json.loads(folder.seconds.read_text()) for folder in (small, large)]
        asked = [_asked(folder) for folder in (small, large)]
        units = [size.units(recipe) for size in (small_size, large_size)]
        trained = [name for name in seconds[0] if name in OBJECTIVES]
        stages = {
            name: _line([each.get(name, 0) for each in units], [each[name] for each in seconds])
            for name in seconds[0]
            if name not in trained
        }
        # Asking times itself: two starts of a teacher differ by more than a few questions take. The
        # first one counts, as it begins with nothing loaded.
        unit = _line([each.questions for each in asked], [each.seconds for each in asked]).unit
        stages[RATIONALES] = Stage(
            start=max(seconds[0][RATIONALES] - unit * asked[0].questions, 0.0), unit=unit
        )
        return cls(
            stages=stages,
            training={
                name: _training(
                    [_Rounds.read(folder, size, name) for folder, size in runs],
                    [each[name] for each in seconds],
                )
                for name in trained
            },
            tokens_in=asked[1].tokens_in / asked[1].questions,
            tokens_out=asked[1].tokens_out / asked[1].questions,
            k=recipe.sampling.k,
            shape=shape_of(recipe),
        )

    def dump(self) -> str:
        """As JSON; :meth:`load` reads it back."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, file: Path) -> Figures:
        """What :meth:`dump` wrote into a file.

        Raises:
            UserError: there are no figures in it.
        """
        try:
            tree = json.loads(file.read_text(encoding="utf-8"))
            tree["stages"] = {name: Stage(**each) for name, each in tree["stages"].items()}
            tree["training"] = {name: Training(**each) for name, each in tree["training"].items()}
            return cls(**tree)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}: no figures of `qcrd plan` can be read there ({error!r}); name the"
                " figures.json of a plan, or delete it, and `qcrd plan` measures again"
            ) from error


def shape_of(recipe: Recipe) -> dict[str, int]:
    """How many of each kind of process work at the same time."""
    replicas = recipe.teacher.max_replicas if recipe.teacher.source == "serve" else 1
    return {
        "replicas": replicas,
        "workers": recipe.train.workers,
        "answering": recipe.evaluate.workers,
    }


@dataclass(frozen=True, kw_only=True)
class _Rounds:
    """The rounds of one training, with what they had to do."""

    rows: list[RoundMetrics]
    pretrain_steps: int
    judge_steps: int  # of a round
    steps: int  # of a round
    questions: int  # of a round
    validated: int

    @classmethod
    def read(cls, folder: RunFolder, size: Size, objective: str) -> _Rounds:
        recipe, home = load_recipe(folder.recipe), folder.training(objective)
        rows = read_metrics(home)
        data = json.loads((home.parent / "data" / "manifest.json").read_text())
        rounds = rounds_of(recipe, data["questions"])
        judged = any("discriminator" in row["seconds"] for row in rows)
        settings = recipe.discriminator
        limit = recipe.train.validate_.max_questions
        held = size.questions["validation"]
        return cls(
            rows=rows,
            pretrain_steps=settings.pretrain_steps if judged else 0,
            judge_steps=settings.steps_per_round if judged else 0,
            steps=rounds.steps_per_round,
            questions=min(rounds.steps_per_round * rounds.batch_size, rounds.questions),
            validated=min(limit or held, held),
        )

    def mean(self, *parts: str, per: int) -> list[float]:
        """Seconds of these parts in each round that has one of them, for one of ``per``."""
        return [
            sum(row["seconds"].get(part, 0.0) for part in parts) / max(per, 1)
            for row in self.rows
            if any(part in row["seconds"] for part in parts)
        ]


def _training(runs: Sequence[_Rounds], seconds: Sequence[float]) -> Training:
    def price(*parts: str, per: str) -> float:
        values = [each for run in runs for each in run.mean(*parts, per=getattr(run, per))]
        return median(values) if values else 0.0

    judge_step = price("discriminator", per="judge_steps")
    # what neither a round nor pretraining has taken
    rest = [
        total
        - sum(sum(row["seconds"].values()) for row in run.rows)
        - run.pretrain_steps * judge_step
        for run, total in zip(runs, seconds, strict=True)
    ]
    return Training(
        start=max(fmean(rest), 0.0),
        step=price("student", per="steps"),
        question=price("negatives", "scoring", "reference", per="questions"),
        judge_step=judge_step,
        validated=price("validation", "probe", per="validated"),
        round=runs[-1].mean("snapshot", "checkpoint", per=1)[-1],  # the first has no checkpoint yet
    )


def _line(units: Sequence[float], seconds: Sequence[float]) -> Stage:
    """The line through two points; neither its start nor its slope is below 0."""
    (first, second), (low, high) = units, seconds
    if second <= first:  # no work of the stage grows; Ray starts in the first run alone
        return Stage(start=max(*seconds, 0.0))
    unit = min(max((high - low) / (second - first), 0.0), high / second)
    return Stage(start=max(high - unit * second, 0.0), unit=unit)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the splits of a run have asked of the teacher, and for how long."""

    questions: int
    seconds: float
    tokens_in: int
    tokens_out: int


def _asked(folder: RunFolder) -> _Asked:
    manifests = [
        json.loads(file.read_text()) for file in (folder.root / "rationales").glob(MANIFEST)
    ]
    calls = [call for manifest in manifests for call in manifest["calls"]]
    return _Asked(
        questions=sum(call["asked"] for call in calls),
        seconds=sum(call["seconds"] for call in calls),
        tokens_in=sum(call["tokens_in"] for call in calls),
        tokens_out=sum(call["tokens_out"] for call in calls),
    )
