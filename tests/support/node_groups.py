"""Which groups of a cluster's nodes Ray's own autoscalers would bring up for a stage of a
recipe.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import (
    _default_utilization_scorer,
    get_bin_pack_residual,
    get_nodes_for,
)
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

Bundle = Mapping[str, float]
INNER_CLUSTER = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The head, which is always there, and the groups that can be brought up: {name: {"resources":
    ..., "max_workers": ...}}.
    """

    head: Bundle
    groups: Mapping[str, Mapping[str, Any]]
    max_workers: int
    idle_timeout_s: float


def read_groups(config: Mapping[str, Any]) -> Groups:
    """The groups of a file for `ray up`, or of a KubeRay manifest as Ray's autoscaler in the head's
    pod reads it.
    """
    if "kind" in config:
        cluster = {
            "metadata": {"name": "qcrd", "namespace": "default"},
            "spec": cluster_spec(config),
        }
        config = _derive_autoscaling_config_from_ray_cr(cluster)
    prepared = prepare_config(copy.deepcopy(dict(config)))
    groups = dict(prepared["available_node_types"])
    head = groups.pop(prepared["head_node_type"])
    return Groups(
        head=head["resources"],
        groups=groups,
        max_workers=prepared["max_workers"],
        idle_timeout_s=60 * prepared["idle_timeout_minutes"],
    )


def cluster_spec(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The RayCluster's spec that a KubeRay manifest is or holds."""
    inner = INNER_CLUSTER.get(manifest["kind"])
    return manifest["spec"][inner] if inner else manifest["spec"]


def holders(cluster: Groups, bundle: Bundle) -> set[str]:
    """The groups whose nodes can hold the bundle, `head` among them."""
    nodes = {
        "head": cluster.head,
        **{name: group["resources"] for name, group in cluster.groups.items()},
    }
    return {
        name
        for name, node in nodes.items()
        if all(node.get(resource, 0) >= amount for resource, amount in bundle.items())
    }


def brought_up(
    cluster: Groups, bundles: Sequence[Bundle], *, autoscaler: str
) -> tuple[Counter[str], int]:
    """(nodes of each group that the autoscaler, `v1` or `v2`, starts for ``bundles``, how many of
    these stay without a place).
    """
    demands = [{name: amount for name, amount in bundle.items() if amount} for bundle in bundles]
    beyond_head, _ = get_bin_pack_residual([dict(cluster.head)], demands)
    return {"v1": _brought_up_by_v1, "v2": _brought_up_by_v2}[autoscaler](cluster, beyond_head)


def _brought_up_by_v1(cluster: Groups, demands: list[dict[str, float]]) -> tuple[Counter[str], int]:
    scorer = partial(
        _default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({})
    )
    started, homeless = get_nodes_for(
        dict(cluster.groups), {}, "head", cluster.max_workers, demands, scorer
    )
    return Counter(started), len(homeless)


def _brought_up_by_v2(cluster: Groups, demands: list[dict[str, float]]) -> tuple[Counter[str], int]:
    kinds = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=group["min_workers"],
            max_worker_nodes=group["max_workers"],
            resources=group["resources"],
        )
        for name, group in cluster.groups.items()
    }
    requests = ResourceRequestUtil.group_by_count(
        [ResourceRequestUtil.make(demand) for demand in demands]
    )
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=kinds,
            max_num_nodes=cluster.max_workers,
            resource_requests=requests,
        )
    )
    started = Counter({launch.instance_type: launch.count for launch in reply.to_launch})
    return started, len(reply.infeasible_resource_requests)
