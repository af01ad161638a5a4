"""What a run folder has cost in tokens of a paid endpoint, kept where neither a killed driver nor a killed actor can forget it."""

from __future__ import annotations

import json
from pathlib import Path

import ray

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


# One for all actors that ask. Restarted, it reads its file again; a call that was under way then is counted once more, never lost.
SharedSpending = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Spending)
