"""The doctor on a real Ray: what it says of memory, ports and the run folder."""

import socket

import pytest

from qcrd_ray import doctor
from qcrd_ray.cluster import nodes as cluster_nodes
from qcrd_ray.doctor import cluster_checks, memory, memory_checks
from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.recipe import Recipe

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


def recipe(run, **changes):
    tree = {
        "name": "x",
        "run": str(run),
        "task": {"kind": "word_problems"},
        "data": {split: {"generate": 3} for split in ("train", "validation", "test")},
        "teacher": {"source": "recording", "path": "gone.jsonl"},
        "student": {"model": "demo"},
    }
    return Recipe.model_validate(tree | changes)


def test_what_a_stage_can_never_have_is_refused_without_waiting_for_it(tmp_path):
    """Bug guarded: a run that reserves its trainers at the start, and so wakes their nodes while
    the teacher talks.
    """
    with pytest.raises(
        MissingResource,
        match=r"training .* asks for 0.001 trainer on one node, and the cluster has 0",
    ):
        doctor.preflight_cluster(
            recipe(tmp_path, train={"worker": {"resources": {"trainer": 0.001}}})
        )
    doctor.preflight_cluster(recipe(tmp_path))


def test_a_student_too_large_for_the_nodes_memory_is_told_in_gib(tmp_path, monkeypatch):
    assert "train.worker: " in memory_checks.check_memory(recipe(tmp_path))  # short texts fit
    monkeypatch.setattr(memory, "parameter_count", lambda config, encoder=False: 70_000_000_000)
    with pytest.raises(MissingResource, match=r"asks for \d{4}\.\d\d GiB memory on one node"):
        memory_checks.check_memory(recipe(tmp_path))


def test_a_port_that_somebody_else_listens_on_is_named(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"serve\.port: 127\.0\.0\.1:{port} is not free on .*in use"
        ):
            cluster_checks.check_ports(recipe(tmp_path, serve={"port": port}))
    assert f"127.0.0.1:{port} is free" in cluster_checks.check_ports(
        recipe(tmp_path, serve={"port": port})
    )


def test_a_node_that_sees_another_folder_is_found(tmp_path):
    """The part that runs on each node, on the one node there is; several hosts are asked in
    tests/cluster.
    """
    nodes = cluster_nodes.live_nodes()
    (tmp_path / "probe").write_text("word")
    assert cluster_nodes.on_nodes(nodes, cluster_nodes.sees, str(tmp_path / "probe"), "word") == [
        (nodes[0], True)
    ]
    assert cluster_nodes.on_nodes(nodes, cluster_nodes.sees, str(tmp_path / "gone"), "word") == [
        (nodes[0], False)
    ]
    left = nodes[0] | {"NodeID": "ab" * 28}
    # bug guarded: a run that is refused because the autoscaler let an idle node go meanwhile
    assert cluster_nodes.on_nodes(
        [left, *nodes], cluster_nodes.sees, str(tmp_path / "probe"), "word"
    ) == [(nodes[0], True)]
