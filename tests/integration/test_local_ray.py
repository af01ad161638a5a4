"""The Ray that a command starts for itself: nobody else reaches it, or reads what it leaves."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray listens there by itself"),
]

LOOK = """
import json, psutil, ray
from qcrd_ray.cluster.resources import connect
from qcrd_ray.recipe import RayRecipe

connect(RayRecipe(address="local"))
ray.get(ray.remote(num_cpus=0)(lambda: None).remote())
ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
addresses = {
    connection.laddr.ip.removeprefix("::ffff:")
    for process in ours
    for connection in process.net_connections("inet")
    if connection.status == psutil.CONN_LISTEN
}
open_files = {file.path for process in ours for file in process.open_files()}
sessions = ray.get_runtime_context().get_temp_dir()
print(json.dumps([len(ours), sorted(addresses), sessions, sorted(open_files)]))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A home and a place for sessions, as a fresh user with the usual umask has them."""
    with tempfile.TemporaryDirectory(prefix="q", dir="/tmp", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.fixture(scope="module")
def seen(place) -> list:
    environment = {name: value for name, value in os.environ.items() if "RAY_A" not in name}
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment | {"HOME": str(place), "RAY_TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=300,
        umask=0o022,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_it_listens_on_the_loopback_alone(seen):
    """Guards servers, workers and metrics that anyone in the network reaches."""
    processes, addresses, *_ = seen
    assert processes > 4
    assert addresses == ["127.0.0.1"]


def test_nobody_else_enters_its_folders_or_reads_its_token(place, seen):
    """Bugs guarded: Ray gives its session folder, with logs, spilled objects and sockets, mode
    0777, and its token, with which one runs code in it, 0644.
    """
    *_, sessions, open_files = seen
    parent = place / f"qcrd-{os.getuid()}"
    assert Path(sessions) == parent / "ray" and list(parent.glob("ray/session_*/logs/raylet.out"))
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    token = place / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    below = {Path(file).relative_to(place).parts[0] for file in open_files if str(place) in file}
    assert below == {parent.name}, "an open file of the session lies elsewhere"
