"""The bill before it is paid: from the seconds of two small runs to those of the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.plan.calibration import ROUNDS, TIMES, small_recipe
from qcrd_ray.plan.estimate import Prices, changes, estimate, gpus_of
from qcrd_ray.plan.figures import Figures, Size, Stage, Training, _line
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[3]
RECIPES = sorted(
    path for path in (ROOT / "jobs" / "recipes").rglob("*.yaml") if path.name != "base.yaml"
)
SIZE = Size(questions={"train": 800, "validation": 300, "test": 300, "held_out": 300})
FIGURES = Figures(
    stages={
        "preparing": Stage(start=10.0),
        "rationales": Stage(start=30.0, unit=0.1),
        "judge": Stage(start=5.0, unit=0.2),
        "evaluation": Stage(start=4.0, unit=0.05),
    },
    training={
        "qcrd": Training(
            start=20.0, step=0.5, question=0.01, judge_step=1.0, validated=0.02, round=0.25
        )
    },
    tokens_in=100.0,
    tokens_out=250.0,
    k=5,
    shape={"replicas": 1, "workers": 2, "answering": 2},
)


def demo(*overrides: str) -> Recipe:
    return load_recipe(ROOT / "jobs" / "recipes" / "demo.yaml", overrides)


def test_each_stage_is_its_start_and_its_units():
    """800 questions and 300 test questions are asked; 8 rounds of 35 steps of 24 questions, D's 80
    and 8 x 4 steps, and 4 validations on 100 questions; 600 questions are answered.
    """
    whole = estimate(demo(), SIZE, FIGURES)
    seconds = {stage.name: stage.seconds for stage in whole.stages}
    assert seconds == {
        "preparing": 10.0,
        "rationales": 30 + 1_100 * 0.1,
        "qcrd": pytest.approx(
            20 + 8 * 0.25 + 280 * 0.5 + 8 * 800 * 0.01 + 112 * 1.0 + 4 * 100 * 0.02
        ),
        "judge": 5 + 300 * 0.2,
        "evaluation": 4 + 600 * 0.05,
    }
    assert whole.bottleneck.name == "qcrd"
    assert (whole.tokens_in, whole.tokens_out) == (110_000, 275_000)
    assert whole.gpu_hours == 0
    assert whole.cost(Prices(million_tokens_in=1, million_tokens_out=4)) == pytest.approx(1.21)


def test_what_more_of_something_changes():
    """Guards a change that reaches another stage's seconds, or one that has a start."""
    others = {
        name: {stage.name: stage.seconds for stage in other.stages}
        for name, other in changes(demo(), SIZE, FIGURES).items()
    }
    whole = {stage.name: stage.seconds for stage in estimate(demo(), SIZE, FIGURES).stages}
    assert others.keys() == {"sampling.k=10", "train.workers=4", "teacher.max_replicas=2"}
    assert others["sampling.k=10"] == whole | {"rationales": 30 + 2 * 110}
    assert others["teacher.max_replicas=2"] == whole | {"rationales": 30 + 110 / 2}
    shared = 280 * 0.5 + 8 * 800 * 0.01 + 112
    alone = 20 + 8 * 0.25 + 4 * 100 * 0.02
    assert others["train.workers=4"] == whole | {"qcrd": pytest.approx(alone + shared / 2)}


def test_gpus_are_held_while_a_stage_runs():
    """Bug guarded: a baseline without negatives was billed for their samplers."""
    recipe = demo(
        "teacher.accelerator=A100",
        "teacher.max_replicas=4",
        "teacher.engine_kwargs.tensor_parallel_size=2",
        "train.worker.gpus=1",
        "negatives.sampler.gpus=0.5",
    )
    figures = Figures(**{**vars(FIGURES), "shape": {"replicas": 4, "workers": 2, "answering": 2}})
    hours = {stage.name: stage.gpu_hours for stage in estimate(recipe, SIZE, figures).stages}
    assert hours["rationales"] == pytest.approx(8 * 140 / 3_600)
    assert hours["qcrd"] > 0
    assert hours["evaluation"] == 0
    held = gpus_of(recipe)
    assert (held["qcrd"], held["finetune"]) == (2.5, 2)


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        ([34.0, 42.0], Stage(start=30.0, unit=0.125)),
        ([42.0, 34.0], Stage(start=34.0)),  # noise: more work never takes less
        ([2.0, 12.0], Stage(start=0.0, unit=0.125)),  # and no start is below 0
    ],
)
def test_two_points_make_a_line(seconds, line):
    assert _line([32, 96], seconds) == line


def test_a_stage_without_units_is_as_long_as_its_longest():
    """Guards Ray's start, which the first of two runs in one process pays alone."""
    assert _line([0, 0], [9.0, 0.5]) == Stage(start=9.0)


def test_asking_is_timed_by_itself(tmp_path):
    """Bugs guarded: a question cost nothing where the second start of a teacher was the shorter;
    and a quarter of what it does, where nearly all of a small run's answers came at once.
    """
    runs = []
    for name, seconds, asked in (("1", 50.0, 32), ("3", 40.0, 192)):
        folder = RunFolder(tmp_path / name)
        stages = {"preparing": 1.0, "rationales": seconds, "evaluation": 4.0}
        took = 4.0 + asked / 16
        call = {"asked": asked, "seconds": took, "first_s": took - 0.1}
        call |= {"tokens_in": asked, "tokens_out": 2 * asked}
        manifest = folder.rationales("train") / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps({"calls": [call]}))
        folder.seconds.write_text(json.dumps(stages))
        runs.append((folder, Size(questions=dict.fromkeys(SIZE.questions, asked))))
    figures = Figures.measured(demo("evaluate.teacher_on_test=false"), runs)
    assert figures.stages["rationales"] == Stage(start=48.0, unit=0.0625)
    assert (figures.tokens_in, figures.tokens_out) == (1.0, 2.0)


def test_figures_are_read_back(tmp_path):
    file = tmp_path / "figures.json"
    file.write_text(FIGURES.dump())
    assert Figures.read(file) == FIGURES


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"stages": {"rationales": {"a": 1}}}'])
def test_a_file_without_figures_is_named(tmp_path, text):
    """Bug guarded: `qcrd plan --figures typo.json` ended in a traceback."""
    file = tmp_path / "figures.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=r"figures\.json: no figures of `qcrd plan`"):
        Figures.read(file)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_small_run_is_a_valid_recipe_of_the_same_kind(path, tmp_path, monkeypatch):
    """Guards a recipe whose splits, rounds or sizes cannot be made small."""
    for variable in ("QCRD_DATASETS", "QCRD_MODELS", "DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    recipe = load_recipe(path)
    splits = ("train", "validation", "test", "held_out", "unlabelled")
    size = Size(
        questions={name: 5_000 for name in splits if getattr(recipe.data, name) is not None}
    )
    for rounds, times in zip(ROUNDS, TIMES, strict=True):
        small = small_recipe(
            recipe, size, run=tmp_path / str(rounds), questions=32 * times, rounds=rounds
        )
        assert small.train.rounds == rounds
        assert small.train.batch_size == recipe.train.batch_size
        assert small.objective == recipe.objective
        first = small.data.train
        asked = first.generate if first.rows is None else first.rows[1] - first.rows[0]
        assert asked == max(32 * times, recipe.train.batch_size)
        RunFolder.check(small)
