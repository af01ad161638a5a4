"""The nodes of the connected cluster, and what a task on each of them finds there.

It imports nothing heavy: a worker that looks whether a port is free needs no torch.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qcrd_ray.errors import UserError

ANSWER_S = 120.0  # a node that has just joined unpacks the job's files first
_SEEN_WITHIN_S = 5.0  # network file systems show a new file elsewhere after a moment


def on_nodes(nodes: Sequence[dict], function: Callable, *arguments: Any) -> list[tuple[dict, Any]]:
    """Call ``function(*arguments)`` on each node, without resources: pairs of node and answer.

    A node that has left meanwhile, as idle ones of an autoscaling cluster do, is left out.
    """
    task = ray.remote(num_cpus=0)(function)
    calls = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    answers = []
    for node, call in zip(nodes, calls, strict=True):
        try:
            answers.append((node, ray.get(call, timeout=ANSWER_S)))
        except (GetTimeoutError, RayError) as error:
            if node["NodeID"] not in {alive["NodeID"] for alive in live_nodes()}:
                continue
            how = (
                f"within {ANSWER_S:g} s"
                if isinstance(error, GetTimeoutError)
                else f"but with {str(error).splitlines()[0]}"
            )
            raise UserError(
                f"cluster: node {node_name(node)} does not answer {how}; look at it with `ray"
                " status`, or take it out"
            ) from error
    return answers


def sees(path: str, word: str) -> bool:
    """Whether this node reads ``word`` in a file."""
    deadline = time.monotonic() + _SEEN_WITHIN_S
    while True:
        try:
            return Path(path).read_text() == word
        except OSError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.2)


def cannot_listen(host: str, port: int) -> str:
    """Why a server cannot listen there; "" where it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def live_nodes() -> list[dict]:
    """The entries of `ray.nodes()` that are alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def node_name(node: dict) -> str:
    """A node's host and address, as a user knows it."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
