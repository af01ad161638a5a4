"""What a run folder has cost in tokens of a paid endpoint, kept where neither a killed driver nor a killed actor can forget it."""

from __future__ import annotations

import json
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from qcrd_ray.run_folder import write_text


class Spending:
    """Prompt and completion tokens of all calls on one run folder, failed rows' included, in a file that is rewritten with every answer."""

    def __init__(self, path: Path):
        self._path = path
        self._tokens = json.loads(path.read_text()) if path.exists() else {"prompt": 0, "completion": 0}

    def add(self, prompt: int, completion: int) -> None:
        self._tokens["prompt"] += prompt
        self._tokens["completion"] += completion
        write_text(self._path, json.dumps(self._tokens) + "\n")

    def spent(self) -> int:
        return sum(self._tokens.values())


def share_spending(path: Path) -> ActorHandle:
    """One :class:`Spending` for all actors that ask, on the driver's node, where a URI's work folder lies.

    Restarted, it reads its file again; a call that was under way then may be counted twice, and is never lost.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Spending)
    return actor.remote(path)
