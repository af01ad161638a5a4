"""The paper's recipes: its numbers, room on the cluster files' nodes, a doctor who is content, and
a README whose commands can be typed.
"""

from __future__ import annotations

import itertools
import re
import shlex

import pytest
import typer
import yaml
from node_groups import brought_up, holders, read_groups
from paper_tiny import FOLDER, PATHS, ROOT, overrides

from qcrd_ray import doctor
from qcrd_ray.cli import app, stages
from qcrd_ray.comparison import read_methods
from qcrd_ray.recipe.file import load_recipe
from qcrd_ray.tasks.splits import load_split

RECIPES = {path.stem: load_recipe(path) for path in PATHS}
CLUSTERS = ("aws.yaml", "gcp.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml")
STAGES = {
    "generate": {"teacher", "data"},
    "train": {"trainer"},
    "evaluate": {"trainer"},
    "serve": {"data"},
}
QUESTIONS = {"svamp": 720, "cqa": 8_766, "anli1": 16_946, "esnli": 549_367}


def test_there_are_two_sizes_of_four_sets():
    assert sorted(RECIPES) == sorted(
        f"{data}_t5_{size}" for data in QUESTIONS for size in ("base", "small")
    )
    assert (
        len({recipe.run for recipe in RECIPES.values()})
        == len({recipe.name for recipe in RECIPES.values()})
        == 8
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_are_the_papers(name):
    recipe = RECIPES[name]
    objective, train = recipe.objective, recipe.train
    assert (
        recipe.sampling.k,
        recipe.sampling.temperature,
        recipe.lag,
        recipe.negatives.temperature,
    ) == (5, 0.7, 5, 1.5)
    assert (
        objective.name,
        objective.alpha_pred,
        objective.alpha_cl,
        objective.beta,
        objective.delta,
    ) == ("qcrd", 0.5, 0.5, 0.2, 3.0)
    assert (objective.selection, objective.weights, objective.labels, recipe.negatives.right) == (
        "minmax",
        "score",
        "gold",
        "keep",
    )
    assert (train.learning_rate, train.schedule, train.batch_size) == (5e-5, "linear", 64)
    assert (recipe.student.max_input_tokens, recipe.student.max_target_tokens) == (1024, 256)
    assert recipe.student.model.endswith(
        name.split("_")[-1]
    ) and recipe.discriminator.model.endswith("base")
    assert train.round.unit == "steps" and train.rounds * train.round.size <= 10_000
    assert train.validate_.every_rounds * train.round.size == 250
    assert (
        recipe.discriminator.pretrain_steps <= 500
        and recipe.discriminator.learning_rate_decay == 0.9
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_splits_have_the_papers_sizes(name):
    data = RECIPES[name].data
    sizes = [
        split.rows and split.rows[1] - split.rows[0]
        for split in (data.train, data.validation, data.test)
    ]
    expected = {
        "svamp": [720, 80, 200],
        "cqa": [8_766, 975, None],
        "anli1": [None] * 3,
        "esnli": [None] * 3,
    }  # None: the hub's own
    assert sizes == expected[name.split("_")[0]]


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("name", RECIPES)
def test_each_stage_finds_room_in_its_own_groups_alone(name, cluster):
    recipe = RECIPES[name]
    largest = recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(
                update={"min_replicas": recipe.teacher.max_replicas}
            )
        }
    )
    groups = read_groups(yaml.safe_load((ROOT / "clusters" / cluster).read_text()))
    for stage, expected in STAGES.items():
        _, bundles = doctor.demands(largest, stage)
        started, homeless = brought_up(groups, bundles, autoscaler="v2")
        assert (set(started), homeless) == (expected, 0), stage
    settings = recipe.compare
    trial = settings.worker.bundle
    assert brought_up(groups, [trial] * settings.workers, autoscaler="v2")[1] == 0 and holders(
        groups, trial
    ) == {"trainer"}


@pytest.fixture(scope="module")
def tiny(tiny_student, tmp_path_factory):
    """The overrides of each recipe that put local things in the place of the hub's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield {
            path: overrides(path, tmp_path_factory.mktemp(path.stem), tiny_student)
            for path in PATHS
        }


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_doctor_is_content_without_a_network(path, tiny):
    recipe = load_recipe(path, tiny[path])
    doctor.preflight(recipe)
    for split in ("train", "validation", "test"):
        questions, rejected = load_split(recipe, split)
        assert (
            questions
            and not rejected
            and all(question.answer is not None for question in questions)
        )
    question = load_split(recipe, "train")[0][0]
    assert (
        question.choices if recipe.task.kind == "multiple_choice" else "{" not in question.question
    )
    if recipe.task.kind == "nli":
        assert re.fullmatch(r"Premise: .+\nHypothesis: .+", question.question)


# --- The README ---

README = (FOLDER / "README.md").read_text()
SHELL = "\n".join(
    block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
)
COMMANDS = [line.split(" #")[0].strip() for line in SHELL.splitlines() if ".venv/bin/qcrd " in line]
VERBS = {
    name: {option for each in verb.params for option in each.opts}
    for name, verb in typer.main.get_command(app).commands.items()
}


def options(command: str) -> dict[str, list[str]]:
    """A command's options, each with the values that it is given."""
    words, given = shlex.split(command), {}
    for option, value in itertools.pairwise(words):
        if option.startswith("--"):
            given.setdefault(option, []).append(value)
    return given


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_can_be_typed(command):
    """Verb, options, recipe, overrides and every method that it names."""
    words = shlex.split(command)
    verb, given = words[words.index(".venv/bin/qcrd") + 1], options(command)
    assert verb in VERBS and set(given) <= VERBS[verb]
    (path,) = [ROOT / word for word in words if word.endswith(".yaml")] or [None]
    if path is None:
        return
    (methods,) = given.get("--methods", [stages.DEFAULT_METHODS])
    names = [name.strip() for name in methods.split(",")]
    (labels,) = given.get("--labels", [None])
    recipe = load_recipe(path, given.get("--set", []))
    if verb == "compare":
        methods = read_methods(path, given.get("--set", []), names, labels=labels)
        assert [method.name for method in methods] == [name.partition("=")[0] for name in names]
        assert recipe.data.train.origin and all(
            stages._fraction(each) for each in given.get("--data-fraction", ["1"])[0].split(",")
        )


def test_every_table_of_the_paper_and_every_variant_has_its_command():
    for table in (
        "Main table",
        "Teacher's labels",
        "Ablation ladder",
        "Lag",
        "Selection",
        "Less data",
        "Score histogram",
    ):
        assert re.search(rf"^\| {table}", README, re.MULTILINE), table
    used = {
        name
        for command in COMMANDS
        for name in options(command).get("--methods", [""])[0].split(",")
    }
    assert set(RECIPES["svamp_t5_base"].compare.variants) <= used


def test_a_fixed_snapshot_is_the_one_before_training():
    """`lag_fixed` says so by a lag of as many rounds as there are."""
    (method,) = read_methods(FOLDER / "svamp_t5_base.yaml", [], ["lag_fixed"])
    assert (
        method.recipe.lag >= method.recipe.train.rounds
        and method.recipe.negatives.before_lag == "oldest"
    )
