"""Grows a cluster by the groups of a cluster file, on Ray's fake provider; see test_groups.py.

    python growing_groups.py <cluster file> <recipe>

Asks for what the stages of the recipe ask, one after another, and prints how many nodes of each
group lived at each step, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import ray
import yaml
from ray.cluster_utils import AutoscalingCluster

from qcrd_ray import doctor
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.errors import MissingResource
from qcrd_ray.recipe.file import load_recipe

GROUPS = ("data", "teacher", "trainer")


def main(cluster_file: str, recipe_file: str) -> None:
    kinds = yaml.safe_load(Path(cluster_file).read_text())["available_node_types"]
    recipe = load_recipe(Path(recipe_file), ["ray.address=auto"])
    groups = AutoscalingCluster(
        {"CPU": 2},
        {name: {**kinds[name], "node_config": {}} for name in GROUPS},
        autoscaler_v2=True,
    )
    groups.start()
    try:
        cluster.connect(recipe.ray)
        steps = {"start": alive()}
        steps["refused"] = refused()
        doctor.check_cluster(recipe)
        steps["checked"] = alive()
        for stage in ("generate", "train"):
            what, bundles = doctor.demands(recipe, stage)
            cluster.wait_for_resources(bundles, what=what, timeout_s=120)
            steps[stage] = alive()
            released_within_s = 120
            while any(alive().values()) and released_within_s > 0:
                time.sleep(1)
                released_within_s -= 1
            steps[f"after {stage}"] = alive()
        print(json.dumps(steps))
    finally:
        ray.shutdown()
        groups.shutdown()


def alive() -> dict[str, int]:
    count = Counter(
        group
        for node in ray.nodes()
        if node["Alive"]
        for group in GROUPS
        if group in node["Resources"]
    )
    return {group: count[group] for group in GROUPS}


def refused() -> str:
    """What no group can ever give is refused at once, though the cluster could grow."""
    start = time.monotonic()
    try:
        cluster.wait_for_resources(
            [{"GPU": 1.0, "sampler": 0.001}], what="the stage", timeout_s=120
        )
    except MissingResource as error:
        return f"{error}" if time.monotonic() - start < 30 else "late"
    return ""


if __name__ == "__main__":
    os.environ["RAY_ADDRESS"] = "auto"
    main(*sys.argv[1:])
