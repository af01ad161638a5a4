"""One local Ray for all integration tests that need nothing special of it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def local_ray():
    """A connected local Ray with eight logical CPUs, shut down after the last test."""
    import ray

    from qcrd_ray.cluster.resources import connect
    from qcrd_ray.recipe import RayRecipe

    connect(RayRecipe(address="local", num_cpus=8))
    yield
    ray.shutdown()
