"""Each recipe for a cluster fits each cluster file, and a stage brings up its own groups alone.

Ray's own autoscalers are asked: version 1, version 2, and KubeRay's, which is version 2 behind
Ray's own reading of the manifest. So this also shows that all of them honour custom resources.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from node_groups import brought_up, cluster_spec, holders, read_groups
from paper_tiny import SPLITS, hub_set

from qcrd_ray import doctor, serving
from qcrd_ray.doctor.recipe_checks import check_questions
from qcrd_ray.recipe import Recipe, ServingRecipe
from qcrd_ray.recipe.file import load_recipe

ROOT = Path(__file__).resolve().parents[3]
# Clusters that a whole run goes to.
RUN_CLUSTERS = ("aws.yaml", "gcp.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml")
STAGES = {
    "generate": {"teacher", "data"},
    "train": {"trainer"},
    "evaluate": {"trainer"},
    "serve": {"data"},
}


RECIPES = {
    path.name: load_recipe(path) for path in sorted((ROOT / "jobs" / "recipes").glob("*.yaml"))
}
FOR_CLUSTERS = [name for name, recipe in RECIPES.items() if recipe.ray.address == "auto"]


def groups_of(name: str):
    return read_groups(yaml.safe_load((ROOT / "clusters" / name).read_text()))


def at_most(recipe: Recipe) -> Recipe:
    """The recipe at its largest: as many replicas as autoscaling may add."""
    teacher = recipe.teacher.model_copy(update={"min_replicas": recipe.teacher.max_replicas})
    serve = recipe.serve.model_copy(
        update={"replicas": recipe.serve.max_replicas or recipe.serve.replicas}
    )
    return recipe.model_copy(update={"teacher": teacher, "serve": serve})


def test_there_is_a_recipe_for_clusters():
    assert "svamp_cluster.yaml" in FOR_CLUSTERS


def test_the_questions_come_from_the_hub(tmp_path, monkeypatch):
    """Bug guarded: a file that no repository has and no cluster file brings to the nodes."""
    splits = [getattr(RECIPES["svamp_cluster.yaml"].data, name) for name in SPLITS]
    assert {(split.dataset, split.path) for split in splits} == {("ChilleD/SVAMP", None)}
    assert [split.rows for split in splits] == [(0, 720), (720, 800), (800, 1000)]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hub = hub_set("svamp", tmp_path / "hub")
    local = [f"data.{name}.dataset={hub}" for name in SPLITS]
    small = ["data.train.rows=[0, 16]", "data.validation.rows=[16, 20]", "data.test.rows=[20, 24]"]
    recipe = load_recipe(ROOT / "jobs" / "recipes" / "svamp_cluster.yaml", [*local, *small])
    assert check_questions(recipe) == "train 16, validation 4, test 4"


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
@pytest.mark.parametrize("cluster", RUN_CLUSTERS)
@pytest.mark.parametrize("recipe", FOR_CLUSTERS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_brings_up_its_own_groups_and_finds_room(recipe, cluster, stage, autoscaler):
    """Bugs guarded: a stage that waits for ever, a GPU that idles while the teacher answers."""
    _, bundles = doctor.demands(at_most(RECIPES[recipe]), stage)
    started, homeless = brought_up(groups_of(cluster), bundles, autoscaler=autoscaler)
    assert homeless == 0
    assert set(started) == STAGES[stage]


@pytest.mark.parametrize("cluster", RUN_CLUSTERS)
@pytest.mark.parametrize("recipe", FOR_CLUSTERS)
@pytest.mark.parametrize("stage", STAGES)
def test_nothing_but_its_own_group_can_hold_a_process(recipe, cluster, stage):
    """Bug guarded: a process without its tie to a group.

    It works until its own group is full, and then brings up another group's node.
    """
    _, bundles = doctor.demands(RECIPES[recipe], stage)
    for bundle in bundles:
        held = holders(groups_of(cluster), bundle)
        assert len(held) == 1 and held <= STAGES[stage], (bundle, held)


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
@pytest.mark.parametrize("cluster", RUN_CLUSTERS)
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in FOR_CLUSTERS])
@pytest.mark.parametrize("stage", STAGES)
def test_a_recipe_for_one_machine_finds_room_too_and_wakes_no_gpu(
    recipe, cluster, stage, autoscaler
):
    """The demo is the first thing that is tried on a new cluster, with --set ray.address=auto."""
    _, bundles = doctor.demands(RECIPES[recipe], stage)
    started, homeless = brought_up(groups_of(cluster), bundles, autoscaler=autoscaler)
    assert homeless == 0 and set(started) <= {"data"}


def test_a_process_without_a_tie_is_seen():
    """The check above can fail: untied, the teacher's replica fits the trainers' nodes too."""
    recipe = RECIPES["svamp_cluster.yaml"]
    untied = recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(
                update={"replica": recipe.teacher.replica.model_copy(update={"resources": {}})}
            )
        }
    )
    _, bundles = doctor.demands(untied, "generate")
    assert holders(groups_of("aws.yaml"), bundles[0]) == {"teacher", "trainer"}


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
def test_more_than_a_group_may_have_is_seen(autoscaler):
    recipe = RECIPES["svamp_cluster.yaml"]
    many = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": 9})})
    _, homeless = brought_up(
        groups_of("aws.yaml"), doctor.demands(many, "train")[1], autoscaler=autoscaler
    )
    assert homeless == 9 + 1 - 4


@pytest.mark.parametrize("cluster", RUN_CLUSTERS)
def test_groups_come_from_nothing_and_go_soon(cluster):
    groups = groups_of(cluster)
    assert {group["min_workers"] for group in groups.groups.values()} == {0}
    assert sum(group["max_workers"] for group in groups.groups.values()) <= groups.max_workers
    assert groups.idle_timeout_s <= 180
    # Ray Data's own small tasks, which cannot be tied, go to the head
    assert groups.head["CPU"] >= 1 and not groups.head.get("GPU")


@pytest.mark.parametrize("name", [*RUN_CLUSTERS[2:], "kuberay/rayservice.yaml"])
def test_a_pod_has_what_its_group_promises(name):
    """Bug guarded: a GPU in Ray's `resources` or in the container's alone, which is no GPU."""
    spec = cluster_spec(yaml.safe_load((ROOT / "clusters" / name).read_text()))
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert int(group["resources"]["CPU"]) <= int(limits["cpu"])
        assert int(group["resources"].get("GPU", 0)) == limits.get("nvidia.com/gpu", 0)


@pytest.mark.parametrize("autoscaler", ["v1", "v2"])
@pytest.mark.parametrize(
    ("config", "cluster", "group"),
    [("student.yaml", cluster, "data") for cluster in RUN_CLUSTERS[:3]]
    + [("kuberay/rayservice.yaml", "kuberay/rayservice.yaml", "student")],
)
def test_the_students_endpoint_has_room(config, cluster, group, autoscaler):
    deployed = yaml.safe_load((ROOT / "clusters" / config).read_text())
    if "kind" in deployed:
        deployed = yaml.safe_load(deployed["spec"]["serveConfigV2"])
    args = deployed["applications"][0]["args"]
    recipe = ServingRecipe.model_validate(
        {name: value for name, value in args.items() if name != "student"}
    )
    largest = recipe.model_copy(update={"replicas": recipe.max_replicas})
    started, homeless = brought_up(
        groups_of(cluster), serving.bundles(largest), autoscaler=autoscaler
    )
    assert set(started) == {group} and homeless == 0


@pytest.mark.parametrize("stage", STAGES)
def test_the_demo_asks_the_local_file_for_nothing_that_its_machines_do_not_count(stage):
    """Ray's local provider counts CPUs, GPUs and memory alone.

    A tie to a group would bring up no machine for ever.
    """
    _, bundles = doctor.demands(RECIPES["demo.yaml"], stage)
    assert {name for bundle in bundles for name, amount in bundle.items() if amount} == {"CPU"}
    assert max(bundle["CPU"] for bundle in bundles) <= 1
