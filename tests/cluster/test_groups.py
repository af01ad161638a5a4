"""A stage brings up its own groups of nodes and no other, and they go after it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import ray
from hosts import ROOT, Hosts, missing

pytestmark = [pytest.mark.cluster, pytest.mark.system, pytest.mark.timeout(400)]
NONE = {"data": 0, "teacher": 0, "trainer": 0}


@pytest.fixture(scope="module")
def nodes():
    """What growing_groups.py saw: the number of nodes of each group, by step.

    It runs on a host of its own, because Ray's fake cluster begins with `ray stop --force`.
    """
    if reason := missing():
        pytest.skip(f"no hosts here: {reason}")
    with Hosts(Path(f"/tmp/qcrd-{os.getpid()}"), count=1, sees_checkout=True) as hosts:
        base = Path(ray.__file__).parent / "autoscaler" / "_private" / "fake_multi_node"
        # the environment itself is left as it is
        layers = f"lowerdir={base},upperdir={hosts.folder}/upper,workdir={hosts.folder}/work"
        hosts.run(
            0,
            f"cd {hosts.folder} && mkdir upper work && mount -t overlay overlay -o {layers} {base}",
        )
        hosts.run(
            0,
            f"cp {Path(__file__).parents[1] / 'support' / 'fake_multi_node.yaml'}"
            f" {base}/example.yaml",
        )
        script = Path(__file__).parents[1] / "support" / "growing_groups.py"
        files = f"{ROOT}/clusters/aws.yaml {ROOT}/jobs/recipes/svamp_cluster.yaml"
        environment = f"RAY_AUTH_MODE=disabled PYTHONPATH={ROOT} QCRD_DATASETS=/nowhere"
        return json.loads(
            hosts.run(
                0, f"{environment} {sys.executable} {script} {files}", timeout_s=380
            ).splitlines()[-1]
        )


def test_checking_a_run_brings_up_no_node(nodes):
    """Bug guarded: trainers that come up, and are paid for, while the teacher talks."""
    assert nodes["start"] == nodes["checked"] == NONE


def test_what_no_group_has_is_refused_at_once(nodes):
    assert "sampler" in nodes["refused"] and "the cluster has 0" in nodes["refused"], nodes[
        "refused"
    ]


def test_generation_brings_up_the_teacher_and_its_actors_alone(nodes):
    assert nodes["generate"] == {"data": 1, "teacher": 1, "trainer": 0}
    assert nodes["after generate"] == NONE


def test_training_brings_up_the_trainers_alone(nodes):
    assert nodes["train"] == {"data": 0, "teacher": 0, "trainer": 3}
    assert nodes["after train"] == NONE
