"""A machine that dies in the middle of its run, and another that goes on from the store: the
driver's SIGKILL, a real S3 API.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import s3_server
from asked_teacher import AskedTeacher
from test_generation import make_recipe

from qcrd_ray.rationales import generate
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.storage import Mirror

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def uri(monkeypatch):
    with s3_server.bucket(monkeypatch) as uri:
        yield uri


def test_a_finished_generation_asks_nothing_again_elsewhere(uri, tmp_path, monkeypatch):
    """The second machine has an empty work folder. No key of the store is in the run folder."""
    teacher = AskedTeacher(tmp_path)
    for machine in ("first", "second"):
        monkeypatch.setenv("QCRD_WORK", str(tmp_path / machine))
        recipe = make_recipe(uri)
        folder = RunFolder.open(recipe)
        manifest = generate(recipe, folder, teacher=teacher)
        folder.push()  # and the machine is gone: in_step() never ends
        assert folder.root.is_relative_to(tmp_path / machine)
    assert (manifest.outcomes["accepted"], len(manifest.calls), len(teacher.asked())) == (60, 1, 60)
    assert not any(
        s3_server.SECRET.encode() in file.read_bytes()
        for file in folder.root.rglob("*")
        if file.is_file()
    )


@pytest.mark.long
def test_a_killed_driver_loses_only_what_was_not_pushed(uri, tmp_path, monkeypatch):
    recipe = make_recipe(uri)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(by_alias=True))
    here = Path(__file__).parents[1] / "support"
    command = [
        sys.executable,
        here / "killed_generation.py",
        tmp_path / "recipe.json",
        tmp_path,
        "3",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{here.parent.parent}:{os.environ.get('PYTHONPATH', '')}",
        "QCRD_WORK": str(tmp_path / "first"),
    }
    monkeypatch.setenv("QCRD_WORK", str(tmp_path / "second"))
    mirror = Mirror(uri, tmp_path / "nowhere")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + 120
        while (
            sum("/rows/" in name for name in mirror.listing()) < 1
            and driver.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.2)
        os.kill(driver.pid, signal.SIGKILL)
    there = mirror.listing()
    assert any("/rows/" in name for name in there) and not any(
        name.endswith("manifest.json") for name in there
    )

    teacher, folder = AskedTeacher(tmp_path), RunFolder.open(recipe)
    manifest = generate(recipe, folder, teacher=teacher)
    assert manifest.outcomes["accepted"] == manifest.rows == 60
    assert (
        manifest.calls[-1]["asked"] < 60
    )  # blocks that had reached the store were not asked again
    assert max(Counter(teacher.asked()).values()) <= 2
