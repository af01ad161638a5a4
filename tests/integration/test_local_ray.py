"""The Ray that a command starts for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LISTENING = """
import ray, psutil
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
print(len(ours), *sorted(addresses))
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Ray does so by itself")
def test_a_local_ray_listens_on_the_loopback_alone():
    """Guards servers, workers and metrics that anyone in the network reaches."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    processes, *addresses = done.stdout.splitlines()[-1].split()
    assert int(processes) > 4
    assert addresses == ["127.0.0.1"]
