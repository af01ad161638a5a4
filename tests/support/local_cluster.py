"""A Ray cluster on several hosts, brought up over ssh from `clusters/local.yaml`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from hosts import PATH, ROOT, Hosts

IDLE_MINUTES = 0.5
STAGES_START = (
    "ServeReplica",
    "ServeController",
    "ProxyActor",
    "BlockAnswerer",
    "TrainController",
    "RayTrainWorker",
    "Sampler",
    "Evaluator",
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running cluster, seen from a machine outside it that holds the token."""

    hosts: Hosts
    config: Path
    env: dict[str, str]
    shared: Path  # a folder that all hosts see

    def ray(
        self, *arguments: str, timeout_s: float = 120.0, **env: str
    ) -> subprocess.CompletedProcess:
        """The `ray` command, as it would be typed in the checkout."""
        call = ["ray", *map(str, arguments)]
        return subprocess.run(
            call, capture_output=True, text=True, timeout=timeout_s, env=self.env | env, cwd=ROOT
        )

    def job(self, *arguments: str) -> list[str]:
        """The command that submits `python jobs/run.py <arguments>` and follows it."""
        submit = ["ray", "job", "submit", "--working-dir", ".", "--"]
        return [*submit, "python", "jobs/run.py", *map(str, arguments)]

    def list(self, what: str) -> list[dict]:
        """`ray list nodes`, `ray list actors` ..., dead ones too."""
        listed = self.ray("list", what, "--format=json", "--limit=10000")
        assert listed.returncode == 0, listed.stdout + listed.stderr
        return json.loads(listed.stdout)

    def working(self) -> list[str]:
        """The live actors that a stage starts.

        Ray Data's and Serve's own small ones stay until the cluster goes, and hold nothing.
        """
        names = [actor["class_name"] for actor in self.list("actors") if actor["state"] == "ALIVE"]
        return [name for name in names if any(kind in name for kind in STAGES_START)]

    def alive(self) -> set[str]:
        return {node["node_ip"] for node in self.list("nodes") if node["state"] == "ALIVE"}


def filled(hosts: Hosts, token: Path) -> dict:
    """clusters/local.yaml with its placeholders filled in, and less patience with idle workers."""
    text = (ROOT / "clusters" / "local.yaml").read_text()
    commands = f"{Path(sys.executable).parent}:{Path(shutil.which('rsync', path=PATH)).parent}"
    tree = yaml.safe_load(text.replace("/opt/qcrd_ray/.venv/bin", commands))
    tree["provider"] |= {"head_ip": hosts.addresses[0], "worker_ips": hosts.addresses[1:]}
    tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    tree["file_mounts"] = {"~/.ray/auth_token": str(token)}
    tree["idle_timeout_minutes"] = IDLE_MINUTES
    return tree


def until(true, *, within_s: float, what: str, log=lambda: "") -> float:
    """Wait until ``true()``, and return the seconds that it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < within_s, f"{what}: not within {within_s:g} s\n{log()}"
        time.sleep(0.5)
    return time.monotonic() - start


def monitor_log(hosts: Hosts) -> str:
    return hosts.run(0, "tail -n 40 /tmp/ray/session_latest/logs/monitor*")
