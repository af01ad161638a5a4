"""A teacher on a cluster of others: it goes when its driver is killed, and not before."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
import ray

from qcrd_ray.teacher.lease import Lease

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]

DRIVER = """
import sys
from ray import serve
from qcrd_ray.cluster.resources import connect
from qcrd_ray.recipe import RayRecipe
from qcrd_ray.teacher.lease import Lease, take_over

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Teacher:
    def __call__(self):
        return "here"

connect(RayRecipe(address=sys.argv[1]))
take_over("leased")
serve.start(proxy_location="Disabled")
lease = Lease("leased", shut_down=True)
serve.run(Teacher.bind(), name="leased", route_prefix=None)
print("up", flush=True)
sys.stdin.readline()
lease.end()
print("ended", flush=True)
sys.stdin.readline()
serve.shutdown()  # other tests share this Ray
print("shut down", flush=True)
"""


@pytest.fixture
def start():
    """Starts drivers that hold an application until a line comes; returns once it is up."""
    address = ray.get_runtime_context().gcs_address
    drivers = []

    def begin() -> subprocess.Popen:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        drivers.append(driver)
        assert word(driver) == "up"
        return driver

    yield begin
    for driver in drivers:
        driver.kill()
        driver.wait()


def told(driver: subprocess.Popen) -> str:
    """What a driver says to the next line."""
    driver.stdin.write("\n")
    driver.stdin.flush()
    return word(driver)


def word(driver: subprocess.Popen) -> str:
    """The next thing that a driver itself says; Ray may print a raylet's words among them."""
    return next(line.strip() for line in driver.stdout if "(raylet)" not in line)


def named(part: str) -> list[str]:
    """The live named actors: what Serve's own status keeps in a process may be a dead Serve's."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return [each["name"] for each in actors if part in each["name"]]


def replicas() -> int:
    return len(named("SERVE_REPLICA::leased#"))


def gone(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while named("leased"):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def test_a_killed_driver_leaves_no_teacher(start):
    """Guards GPUs that a killed job held on a shared cluster until somebody looked."""
    driver = start()
    assert replicas() == 1 and named(" keeper") == ["leased keeper"]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert gone(60), named("")


def test_the_next_driver_takes_the_lease_over_and_ends_it(start):
    """Guards a keeper of the dead driver that deletes what the next one has deployed."""
    first = start()
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = start()
    time.sleep(15)  # three times as long as a keeper takes to look
    assert replicas() == 1 and named(" keeper") == ["leased keeper"]
    assert told(second) == "ended"
    assert named(" keeper") == [] and replicas() == 1, "deleting is the teacher's own part"
    assert told(second) == "shut down"


def test_a_lease_without_an_application_ends_too():
    lease = Lease("never deployed", shut_down=False)
    assert named(" keeper") == ["never deployed keeper"]
    lease.end()
    assert named(" keeper") == []
