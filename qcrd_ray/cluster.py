"""The Ray that a run works on: join it or start it, and find out before a stage whether it can ever give what the stage asks for.

Ray's own answer to an impossible demand is to wait for ever. Here a stage first calls :func:`require`, which names the resource that is
missing: at once on a Ray that this process started, and after a deadline on a cluster that might still grow.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.recipe import RayRecipe

Bundle = dict[str, float]  # resources that one process needs on one node: {"CPU": 1.0, "GPU": 1.0}

LOCAL_CPUS = 8  # logical CPUs declared on a smaller machine, so that every stage's roles fit beside each other
TIE = 0.001  # of a custom resource: enough to be placed where it is, and too little to use it up
_POLL_S = 1.0


def connect(recipe: RayRecipe) -> None:
    """Join or start the Ray that the recipe names; does nothing where this process is connected already.

    `local` starts a Ray that lives as long as this process. `auto` joins the cluster that RAY_ADDRESS names or that runs on this
    machine, and starts a local one where there is none.

    Raises:
        UserError: no cluster answers at the address, or it refuses this client.
    """
    if ray.is_initialized():
        return
    # Several processes share the cores of a node: a library that starts a thread per core in each makes all of them slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    named = os.environ.get("RAY_ADDRESS") if recipe.address == "auto" else recipe.address
    if named == "local":
        _start_local(recipe)
    elif named and named != "auto":
        _join(named)
    else:
        try:
            _init(address="auto")
        except ConnectionError:  # none runs here
            _start_local(recipe)


def require(demands: Sequence[Bundle], *, what: str, timeout_s: float) -> None:
    """Return once the cluster can hold all ``demands`` side by side, each on one node.

    The demands are reserved as one placement group for a moment, so an autoscaling cluster sees them and grows, and what other jobs
    hold is waited for. A Ray that this process started cannot grow: what exceeds its total is refused at once.

    Args:
        demands: one bundle per process that the stage will start.
        what: who asks, for the error: "the teacher (teacher.max_replicas)".
        timeout_s: how long to wait for a cluster that grows or is busy.

    Raises:
        MissingResource: names the resource, how much is asked and how much there is.
    """
    bundles = [nonzero for bundle in demands if (nonzero := {name: amount for name, amount in bundle.items() if amount > 0})]
    if not bundles:
        return
    if _own_ray() and (shortage := _shortage(bundles, _totals())):
        raise MissingResource(f"{what} asks for {shortage}. {_advice()}")
    group = placement_group(bundles, strategy="PACK")
    try:
        deadline = time.monotonic() + timeout_s
        while not group.wait(_POLL_S):
            if time.monotonic() > deadline:
                raise MissingResource(_late(bundles, what=what, timeout_s=timeout_s))
    finally:
        remove_placement_group(group)


def tie(resources: Mapping[str, float]) -> Bundle:
    """What a helper of a process that asks for ``resources`` asks for itself, to be placed in the same group of nodes."""
    return {name: min(amount, TIE) for name, amount in resources.items()}


def _start_local(recipe: RayRecipe) -> None:
    cpus = recipe.num_cpus or max(LOCAL_CPUS, os.cpu_count() or 1)
    _init(address="local", num_cpus=cpus, include_dashboard=False)


def _join(address: str) -> None:
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError, ray.exceptions.RaySystemError) as error:
        raise UserError(
            f"ray.address: cannot join a Ray cluster at {address}: {str(error).splitlines()[0] if str(error) else type(error).__name__}\n"
            "Check the address and that the cluster runs. A cluster with token authentication wants RAY_AUTH_MODE=token and the token "
            "(RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token) in this environment."
        ) from error


def _init(**arguments) -> None:
    """`ray.init`, quietly: workers' output stays in Ray's log files, so that the progress line is the one thing on the screen."""
    ray.init(log_to_driver=False, logging_level=logging.WARNING, configure_logging=True, **arguments)


def _own_ray() -> bool:
    """Whether this process started the Ray that it is connected to: a single node, without an autoscaler."""
    node = ray._private.worker._global_node
    return node is not None and node.is_head()


def _totals() -> list[Bundle]:
    """What each live node has in all, free or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _shortage(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> str:
    """The first resource that ``nodes`` cannot give to ``bundles`` even when idle: "3 GPU, and the cluster has 1"; "" when none."""
    for name in sorted({name for bundle in bundles for name in bundle}):
        asked = [bundle.get(name, 0.0) for bundle in bundles]
        there = [node.get(name, 0.0) for node in nodes]
        if max(asked) > max(there, default=0.0):
            return f"{max(asked):g} {name} on one node, and the cluster has {max(there, default=0.0):g}"
        if sum(asked) > sum(there):
            return f"{sum(asked):g} {name}, and the cluster has {sum(there):g}"
    return ""


def _late(bundles: Sequence[Bundle], *, what: str, timeout_s: float) -> str:
    waited = f"after {timeout_s:g} s (ray.schedule_timeout_s)"
    if shortage := _shortage(bundles, _totals()):
        return f"{what} asks for {shortage}, and it did not grow {waited}. {_advice()}"
    total = {name: sum(bundle.get(name, 0.0) for bundle in bundles) for bundle in bundles for name in bundle}
    free = ray.available_resources()
    asked = ", ".join(f"{amount:g} {name} ({free.get(name, 0.0):g} free)" for name, amount in sorted(total.items()))
    return f"{what} asks for {asked}: the cluster has that much, but other work holds it {waited}. Wait for that, or ask for less."


def _advice() -> str:
    local = " On a local Ray, ray.num_cpus declares logical CPUs." if _own_ray() else ""
    return f"Ask for less, or add a node that has it.{local}"
