"""What `pip install .` installs works outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = {".css", ".html", ".json", ".md", ".safetensors", ".typed"}  # package data, by suffix


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the installed wheel; its dependencies are those of this environment."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("src", "whl", "site"))
    # a copy: setuptools writes build/ beside pyproject.toml, and takes what an older build left
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "qcrd_ray", source / "qcrd_ray", ignore=shutil.ignore_patterns("__pycache__")
    )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run(build, check=True, cwd=source)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run(
        [*pip, "install", *offline, "--no-compile", "--target", str(target), str(wheel)], check=True
    )
    return target


@pytest.fixture
def qcrd(installed, tmp_path):
    """Runs the installed `qcrd` in an empty folder: (exit code, output)."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "200"}

    def call(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(installed / "bin" / "qcrd"), *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    return call


@pytest.mark.system
def test_the_wheel_holds_every_file_of_the_package(installed):
    """Bug guarded: demo models, pages or styles that stay behind in the repository."""
    there = {path.relative_to(installed) for path in (installed / "qcrd_ray").rglob("*")}
    files = [path for path in (ROOT / "qcrd_ray").rglob("*") if path.suffix in {".py", *DATA}]
    assert [path for path in files if path.relative_to(ROOT) not in there] == []


@pytest.mark.system
def test_the_installed_program_works_in_an_empty_folder(installed, qcrd, tmp_path):
    from qcrd_ray import __version__

    where = [sys.executable, "-c", "import qcrd_ray; print(qcrd_ray.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.check_output(where, cwd=tmp_path, env=environment, text=True)
    assert Path(found.strip()).is_relative_to(installed), "this would test the checkout"
    assert qcrd("--version") == (0, f"qcrd {__version__}\n")
    code, output = qcrd("init")
    assert code == 0 and (tmp_path / "recipe.yaml").exists(), output
    code, output = qcrd("doctor")
    assert code == 0, output
