"""The arithmetic behind "can this cluster ever give that": no Ray is started."""

import pytest

from qcrd_ray.cluster import resources
from qcrd_ray.cluster.resources import allowed_workers, may_have, shortage_of

HEAD = {"CPU": 4.0}
TRAINER = {"CPU": 8.0, "GPU": 2.0, "trainer": 1.0}
TEACHER = {"CPU": 8.0, "GPU": 1.0, "teacher": 1.0}


def config(**kinds):
    types = {"head": {"resources": HEAD, "max_workers": 0}, **kinds}
    return {"available_node_types": types, "head_node_type": "head", "max_workers": 7}


@pytest.mark.parametrize(
    ("bundles", "told"),
    [
        ([], ""),
        ([{"CPU": 8, "GPU": 2, "trainer": 0.001}], ""),
        ([{"GPU": 1, "teacher": 0.5}, {"GPU": 2, "trainer": 0.5}], ""),
        ([{"GPU": 3}], "3 GPU on one node, and the cluster has 2"),
        ([{"GPU": 2}, {"GPU": 2}], "4 GPU, and the cluster has 3"),
        ([{"CPU": 1, "sampler": 0.001}], "0.001 sampler on one node, and the cluster has 0"),
        (
            [{"GPU": 2, "teacher": 1}],
            "2 GPU and 1 teacher on one node, and no node of the cluster has all of them",
        ),
    ],
)
def test_what_falls_short_is_named(bundles, told):
    """Bug guarded: resources that are there, but never on one node, pass a check of the totals and
    are waited for for ever.
    """
    assert shortage_of(bundles, [HEAD, TRAINER, TEACHER]) == told


def test_a_cluster_file_allows_each_kind_at_its_most():
    kinds = {
        "trainers": {"resources": TRAINER, "max_workers": 2},
        "teachers": {"resources": TEACHER, "min_workers": 0, "max_workers": 1},
    }
    assert allowed_workers(config(**kinds)) == [TRAINER, TRAINER, TEACHER]


def test_a_kind_without_a_limit_of_its_own_has_the_cluster_files():
    assert allowed_workers(config(trainers={"resources": TRAINER})) == [TRAINER] * 7


def test_no_autoscaler_allows_no_worker():
    assert allowed_workers({}) == []


def test_workers_of_unknown_size_cannot_be_counted():
    """The local provider's one node type has no resources until a machine has joined: nothing may
    be refused on that ground.
    """
    machine = {"node_config": {}, "resources": {}, "min_workers": 0, "max_workers": 2}
    assert (
        allowed_workers(
            {
                "available_node_types": {"local.cluster.node": machine},
                "head_node_type": "local.cluster.node",
            }
        )
        is None
    )


@pytest.mark.parametrize(
    ("live", "local", "cluster_file", "has"),
    [
        ([TRAINER], True, None, True),
        ([HEAD], True, None, False),
        ([HEAD], False, config(trainers={"resources": TRAINER, "max_workers": 2}), True),
        ([HEAD], False, config(trainers={"resources": TRAINER, "max_workers": 0}), False),
        ([HEAD], False, {}, False),  # no autoscaler
        ([HEAD], False, None, None),  # KubeRay's, which runs outside
        ([HEAD, TRAINER], False, None, True),
    ],
)
def test_a_gpu_that_can_be_started_counts(monkeypatch, live, local, cluster_file, has):
    """Bug guarded: only live nodes were asked, and a cluster's groups start at 0 nodes."""
    monkeypatch.setattr(resources, "_node_totals", lambda: list(live))
    monkeypatch.setattr(resources, "started_ray_here", lambda: local)
    monkeypatch.setattr(resources, "autoscaler_config", lambda: cluster_file)
    assert may_have("GPU") is has
