"""The Ray that a run works on: join it or start it, and find out before a stage whether it can ever
give what the stage asks for.

Ray's own answer to an impossible demand is to wait for ever. Here :func:`check_feasible` refuses at the
start what can never be met, without waking a node for it, and :func:`wait_for_resources` waits, just before a
stage, for what that stage takes: a cluster that grows brings up each
group of nodes when its own stage begins, and no earlier.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import ray
import yaml
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.recipe import RayRecipe

Bundle = dict[str, float]  # resources that one process needs on one node: {"CPU": 1.0, "GPU": 1.0}

# logical CPUs declared on a smaller machine, so that every stage's roles fit beside each other
LOCAL_CPUS = 8
COLOCATE_SHARE = (
    0.001  # of a custom resource: enough to be placed where it is, and too little to use it up
)
_POLL_S = 1.0
# Ray sets it for the entrypoint of a submitted job, and nowhere else
_SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_UNTOLD = ("accelerator_type:", "memory")

log = logging.getLogger(__name__)


def connect(recipe: RayRecipe) -> None:
    """Join or start the Ray that the recipe names; does nothing where this process is connected
    already.

    `local` starts a Ray that lives as long as this process. `auto` joins the cluster that
    RAY_ADDRESS names or that runs on this
    machine, and starts a local one where there is none. In a submitted job `local` is the cluster
    that it was submitted to: a Ray of
    its own would crowd the head and leave the other nodes idle.

    Raises:
        UserError: no cluster answers at the address, or it refuses this client.
    """
    if ray.is_initialized():
        return
    # Several processes share the cores of a node: a library that starts a thread per core in each
    # makes all of them slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    address = recipe.address
    if address == "local" and _SUBMITTED_JOB in os.environ:
        log.warning(
            "ray.address: local is, in a submitted job, the cluster that it was submitted to"
        )
        address = "auto"
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    if named == "local":
        _start_local(recipe)
    elif named and named != "auto":
        _join(named)
    else:
        try:
            _init(address="auto")
        except ConnectionError:  # none runs here
            _start_local(recipe)


def check_feasible(demands: Sequence[Bundle], *, what: str) -> None:
    """Refuse what the cluster can never hold side by side, even when it is idle and has grown as
    far as it may. Starts no node.

    Without an autoscaler that is what the live nodes have; with one, also every worker that its
    configuration allows. Where nobody on
    the cluster can tell (KubeRay's autoscaler runs beside it, and the local provider learns what a
    machine has when it joins), nothing
    is refused here, and :func:`wait_for_resources` names what did not come.

    Raises:
        MissingResource: as :func:`wait_for_resources` does.
    """
    bundles = _nonzero(demands)
    nodes = _totals()
    if not _own_ray():
        config = _autoscaler_config()
        workers = allowed_workers(config) if config is not None else None
        if workers is None:
            return
        nodes += workers
        # configurations count GPUs and CPUs, and seldom name the GPUs' type or the memory
        if workers:
            bundles = [
                {name: amount for name, amount in bundle.items() if not name.startswith(_UNTOLD)}
                for bundle in bundles
            ]
    if shortage := shortage_of(bundles, nodes):
        raise MissingResource(f"{what} asks for {shortage}. {_advice()}")


def wait_for_resources(demands: Sequence[Bundle], *, what: str, timeout_s: float) -> None:
    """Return once the cluster can hold all ``demands`` side by side, each on one node.

    What is not :func:`check_feasible` is refused at once. The rest is reserved as one placement group for
    a moment, so an autoscaling cluster sees it and grows, and what other jobs hold is waited for.

    Args:
        demands: one bundle per process that the stage will start.
        what: who asks, for the error: "the teacher (teacher.max_replicas)".
        timeout_s: how long to wait for a cluster that grows or is busy.

    Raises:
        MissingResource: names the resource, how much is asked and how much there is.
    """
    bundles = _nonzero(demands)
    if not bundles:
        return
    check_feasible(bundles, what=what)
    group = placement_group(bundles, strategy="PACK")
    try:
        deadline = time.monotonic() + timeout_s
        while not group.wait(_POLL_S):
            if time.monotonic() > deadline:
                raise MissingResource(_late(bundles, what=what, timeout_s=timeout_s))
    finally:
        remove_placement_group(group)


def colocate(resources: Mapping[str, float]) -> Bundle:
    """What a helper of a process that asks for ``resources`` asks for itself, to be placed in the
    same group of nodes.
    """
    return {name: min(amount, COLOCATE_SHARE) for name, amount in resources.items()}


def _start_local(recipe: RayRecipe) -> None:
    cpus = recipe.num_cpus or max(LOCAL_CPUS, os.cpu_count() or 1)
    _init(address="local", num_cpus=cpus, include_dashboard=False)


def _join(address: str) -> None:
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError, ray.exceptions.RaySystemError) as error:
        raise UserError(
            f"ray.address: cannot join a Ray cluster at {address}:"
            f" {str(error).splitlines()[0] if str(error) else type(error).__name__}\nCheck the"
            " address and that the cluster runs. A cluster with token authentication wants"
            " RAY_AUTH_MODE=token and the token (RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token) in this"
            " environment."
        ) from error


def _init(**arguments) -> None:
    """`ray.init`, quietly: workers' output stays in Ray's log files, so that the progress line is
    the one thing on the screen.
    """
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(
        log_to_driver=False, logging_level=logging.WARNING, configure_logging=True, **arguments
    )
    if callable(on_sigterm):  # Ray has put its own in the place of ours
        signal.signal(signal.SIGTERM, on_sigterm)


def _own_ray() -> bool:
    """Whether this process started the Ray that it is connected to: a single node, without an
    autoscaler.
    """
    node = ray._private.worker._global_node
    return node is not None and node.is_head()


def _totals() -> list[Bundle]:
    """What each live node has in all, free or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _nonzero(demands: Sequence[Bundle]) -> list[Bundle]:
    return [
        nonzero
        for bundle in demands
        if (nonzero := {name: amount for name, amount in bundle.items() if amount > 0})
    ]


def shortage_of(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> str:
    """The first thing that ``nodes`` cannot give to ``bundles`` even when idle: "3 GPU, and the
    cluster has 1"; "" when none.
    """
    for name in sorted({name for bundle in bundles for name in bundle}):
        asked = [bundle.get(name, 0.0) for bundle in bundles]
        there = [node.get(name, 0.0) for node in nodes]
        if max(asked) > max(there, default=0.0):
            return (
                f"{_amount(max(asked), name)} on one node, and the cluster has"
                f" {_amount(max(there, default=0.0))}"
            )
        if sum(asked) > sum(there):
            return f"{_amount(sum(asked), name)}, and the cluster has {_amount(sum(there))}"
    for bundle in bundles:
        if not any(
            all(node.get(name, 0.0) >= amount for name, amount in bundle.items()) for node in nodes
        ):
            together = " and ".join(
                _amount(amount, name) for name, amount in sorted(bundle.items())
            )
            return f"{together} on one node, and no node of the cluster has all of them"
    return ""


def _amount(amount: float, name: str = "") -> str:
    """Memory is counted in bytes, everything else in pieces: "2 GPU", "1.5 GiB memory"."""
    number = f"{amount / (1 << 30):.2f} GiB" if amount >= 1 << 20 else f"{amount:g}"
    return f"{number} {name}".rstrip()


def allowed_workers(config: Mapping) -> list[Bundle] | None:
    """The resources of every worker that a cluster configuration (as `ray up` takes it) allows; {}
    allows none.

    None where it does not say what a worker has: the local provider finds that out when one joins.
    """
    workers: list[Bundle] = []
    for name, kind in config.get("available_node_types", {}).items():
        count = kind.get(
            "max_workers", 0 if name == config["head_node_type"] else config.get("max_workers", 0)
        )
        if count and not kind.get("resources"):
            return None
        workers += [kind["resources"]] * count
    return workers


def _autoscaler_config() -> dict | None:
    """The configuration of the joined cluster's autoscaler, read on its head; {} where it has none,
    None where it runs elsewhere.
    """
    head = next(
        node
        for node in ray.nodes()
        if node["Alive"] and "node:__internal_head__" in node["Resources"]
    )
    on_head = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
    return ray.get(
        _read_config.options(scheduling_strategy=on_head).remote(
            ray.get_runtime_context().gcs_address
        )
    )


@ray.remote(num_cpus=0)
def _read_config(gcs_address: str) -> dict | None:
    """Ray keeps the configuration's path in one place only: the command line of the head's monitor.
    KubeRay's head has no monitor.
    """
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" in arguments and any(
            argument.endswith("/monitor.py") for argument in arguments
        ):
            option = "--autoscaling-config="
            path = next(
                (
                    argument.removeprefix(option)
                    for argument in arguments
                    if argument.startswith(option)
                ),
                None,
            )
            return yaml.safe_load(Path(path).expanduser().read_text()) if path else {}
    return None


def _late(bundles: Sequence[Bundle], *, what: str, timeout_s: float) -> str:
    waited = f"after {timeout_s:g} s (ray.schedule_timeout_s)"
    if shortage := shortage_of(bundles, _totals()):
        return f"{what} asks for {shortage}, and it did not grow {waited}. {_advice()}"
    total = {
        name: sum(bundle.get(name, 0.0) for bundle in bundles)
        for bundle in bundles
        for name in bundle
    }
    free = ray.available_resources()
    asked = ", ".join(
        f"{amount:g} {name} ({free.get(name, 0.0):g} free)"
        for name, amount in sorted(total.items())
    )
    return (
        f"{what} asks for {asked}: the cluster has that much, but other work holds it {waited}."
        " Wait for that, or ask for less."
    )


def _advice() -> str:
    if _own_ray():
        return (
            "Ask for less, or add a node that has it. On a local Ray, ray.num_cpus declares logical"
            " CPUs."
        )
    return (
        "Ask for less, or add nodes that have it; the cluster file's groups (or `ray start"
        " --resources`) give nodes custom resources."
    )
