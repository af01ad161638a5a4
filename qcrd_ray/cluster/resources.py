"""Connect to Ray, and find out before a stage starts whether the cluster can hold it.

Ray itself waits for ever for resources that no node has. :func:`check_feasible` refuses at a run's
start what the cluster can never hold, without starting a node. :func:`wait_for_resources` waits,
just before a stage, for what that stage takes: an autoscaling cluster starts each group of nodes
when its stage begins and no earlier.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from qcrd_ray.cluster.private_files import keep_token_private, session_parent
from qcrd_ray.cluster.ray_internals import (
    autoscaler_config,
    in_submitted_job,
    listen_on_loopback,
    prepare_serve_proxies,
    sessions_in,
    started_ray_here,
)
from qcrd_ray.errors import MissingResource, UserError
from qcrd_ray.recipe import RayRecipe

# What one process needs of one node: {"CPU": 1.0, "GPU": 1.0}.
Bundle = dict[str, float]

# Logical CPUs of a local Ray on a smaller machine, so that all actors of a stage fit at once.
LOCAL_CPUS = 8
# The share of a custom resource that places an actor on its node and uses next to nothing of it.
COLOCATE_SHARE = 0.001
_POLL_S = 1.0
_CONNECT_S = 10.0  # within which a cluster that is up takes a connection
# Cluster configurations give CPUs and GPUs, and seldom the type of a GPU or the memory.
_SELDOM_CONFIGURED = ("accelerator_type:", "memory")

log = logging.getLogger(__name__)


def connect(recipe: RayRecipe) -> None:
    """Join or start the Ray that ``recipe.address`` names, unless this process is connected.

    - None joins the cluster that RAY_ADDRESS names; if it names none, it starts a local Ray.
    - `local` starts a Ray that ends with this process, that only this machine reaches, and whose
      files only this user reads. In a submitted job it means the cluster that the job was submitted
      to: a second Ray would crowd the head and leave the other nodes idle.
    - `auto` joins the cluster that RAY_ADDRESS names, or one that runs on this machine; if there is
      none, it starts a local Ray. What runs may be another command's private Ray, which ends with
      that command.
    - Everything else is the address of a cluster to join.

    Raises:
        UserError: no cluster answers at the address, or it refuses this client.
    """
    if ray.is_initialized():
        return
    # Several processes share a node's cores; one thread per core in each of them slows all down.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    address = recipe.address
    if in_submitted_job() and address in (None, "local"):
        if address:
            log.warning(
                "ray.address: local is, in a submitted job, the cluster that it was submitted to"
            )
        address = "auto"
    named = address
    if address in (None, "auto"):
        named = os.environ.get("RAY_ADDRESS") or ("local" if address is None else None)
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
    """Refuse what the cluster can never hold side by side, even if idle and grown to its limit.

    Counted are the live nodes and, with an autoscaler, every worker that its configuration allows.
    Where that cannot be known (KubeRay's autoscaler runs outside the cluster; the local provider
    learns what a machine has when it joins) nothing is refused here, and
    :func:`wait_for_resources` names what did not come. Starts no node.

    Args:
        demands: one bundle per process that runs at the same time.
        what: what needs them, for the error: "the teacher (teacher.max_replicas)".

    Raises:
        MissingResource: names the resource, how much is asked and how much there is.
    """
    bundles = _nonzero(demands)
    nodes = _node_totals()
    if not started_ray_here():
        config = autoscaler_config()
        workers = allowed_workers(config) if config is not None else None
        if workers is None:
            return
        nodes += workers
        if workers:
            bundles = [
                {
                    name: amount
                    for name, amount in bundle.items()
                    if not name.startswith(_SELDOM_CONFIGURED)
                }
                for bundle in bundles
            ]
    if shortage := shortage_of(bundles, nodes):
        raise MissingResource(f"{what} asks for {shortage}. {_advice()}")


def may_have(resource: str) -> bool | None:
    """Whether a node of the connected cluster has some of ``resource``, or one that it can start.

    None: no node has it now, and what the autoscaler can start is not known here, as on Kubernetes.
    A cluster of Ray's local provider has what its live nodes have: it keeps at least one worker,
    and counts on the others being like it.
    """
    if any(node.get(resource, 0.0) for node in _node_totals()):
        return True
    if not started_ray_here() and autoscaler_config() is None:
        return None
    return any(worker.get(resource, 0.0) for worker in startable_workers())


def startable_workers() -> list[Bundle]:
    """The resources of every worker that the connected cluster's autoscaler may start.

    Empty where there is no autoscaler, or what it may start is not known here.
    """
    config = None if started_ray_here() else autoscaler_config()
    return (allowed_workers(config) or []) if config else []


def wait_for_resources(demands: Sequence[Bundle], *, what: str, timeout_s: float) -> None:
    """Return once the cluster can hold all ``demands`` side by side, each on one node.

    What :func:`check_feasible` refuses is refused at once. Then all demands are reserved for a
    moment as one placement group: an autoscaler sees it and grows the cluster, and a busy cluster
    is waited for.

    Args:
        demands: one bundle per process that the stage will start.
        what: what needs them, for the error: "the teacher (teacher.max_replicas)".
        timeout_s: how long to wait, in seconds.

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
                raise MissingResource(_late_message(bundles, what=what, timeout_s=timeout_s))
    finally:
        remove_placement_group(group)


def colocate(resources: Mapping[str, float]) -> Bundle:
    """A tiny share of each of ``resources``, to place a light actor on the nodes that have them."""
    return {name: min(amount, COLOCATE_SHARE) for name, amount in resources.items()}


def _start_local(recipe: RayRecipe) -> None:
    cpus = recipe.num_cpus or max(LOCAL_CPUS, os.cpu_count() or 1)
    prepare_serve_proxies()
    listen_on_loopback()
    keep_token_private(make=True)
    session = sessions_in(session_parent())
    try:
        _init(address="local", num_cpus=cpus, include_dashboard=False, **session)
    except Exception as error:  # Ray raises plain Exceptions where one of its processes died
        raise UserError(
            f"ray: a local Ray did not start: {_first_line(error)}\nIts processes' own words lie in"
            f" {session['_temp_dir']}/session_latest/logs. It needs memory, room in that folder and"
            " in /dev/shm, and some hundred processes (`ulimit -u`). A cluster that runs already is"
            " joined by ray.address, or --address."
        ) from error


def _join(address: str) -> None:
    keep_token_private(make=False)
    try:
        _check_listens(address)
        if _on_loopback_alone(address):  # another command's own Ray
            listen_on_loopback()
        _init(address=address)
    except Exception as error:  # of many kinds: an odd address, a name that nobody knows, ...
        raise UserError(
            f"ray.address: cannot join a Ray cluster at {address}: {_first_line(error)}\nCheck the"
            " address and that the cluster runs. A cluster with token authentication needs"
            " RAY_AUTH_MODE=token and the token (RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token) in this"
            " environment."
        ) from error


def _check_listens(address: str) -> None:
    """Raise OSError where nothing listens at ``address``: Ray itself tries for twenty minutes."""
    host, _, port = address.rpartition(":")
    if "://" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _first_line(error: Exception) -> str:
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _on_loopback_alone(address: str) -> bool:
    """Whether ``address`` is a Ray of this machine that no other machine reaches.

    Ray would look for it at the address that others reach.
    """
    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        return False
    try:
        with socket.create_connection((ray.util.get_node_ip_address(), int(port)), timeout=2):
            return False
    except OSError:
        return True


def _init(**arguments) -> None:
    """Call `ray.init` without workers' output on the screen; Ray's log files keep it."""
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(
        log_to_driver=False, logging_level=logging.WARNING, configure_logging=True, **arguments
    )
    if callable(on_sigterm):  # Ray installs a handler of its own
        signal.signal(signal.SIGTERM, on_sigterm)


def _node_totals() -> list[Bundle]:
    """The resources of each live node, free or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _nonzero(demands: Sequence[Bundle]) -> list[Bundle]:
    return [
        nonzero
        for bundle in demands
        if (nonzero := {name: amount for name, amount in bundle.items() if amount > 0})
    ]


def shortage_of(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> str:
    """What idle ``nodes`` lack to hold ``bundles``: "3 GPU, and the cluster has 1"; "" if nothing.

    Checks each resource's largest and total amount, and that every bundle fits on one node by
    itself; it solves no packing problem.
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
    """ "2 GPU", "1.50 GiB memory"; Ray counts memory in bytes."""
    number = f"{amount / (1 << 30):.2f} GiB" if amount >= 1 << 20 else f"{amount:g}"
    return f"{number} {name}".rstrip()


def allowed_workers(config: Mapping) -> list[Bundle] | None:
    """The resources of every worker that a cluster configuration (as `ray up` takes it) allows.

    {} allows none. None where it does not say what a worker has: the local provider learns that
    when one joins.
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


def _late_message(bundles: Sequence[Bundle], *, what: str, timeout_s: float) -> str:
    waited = f"after {timeout_s:g} s (ray.schedule_timeout_s)"
    if shortage := shortage_of(bundles, _node_totals()):
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
    if started_ray_here():
        return (
            "Ask for less, or add a node that has it. On a local Ray, ray.num_cpus declares logical"
            " CPUs."
        )
    return (
        "Ask for less, or add nodes that have it; the cluster file's groups (or `ray start"
        " --resources`) give nodes custom resources."
    )
