"""Ray Data's settings for the package's own jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext, ExecutionResources

from qcrd_ray.cluster.ray_internals import silence_progress_warning


@contextmanager
def data_context(*, cpus: float) -> Iterator[DataContext]:
    """Run the block under a copy of Ray Data's settings, which the block may change further.

    Ray Data shows no progress bars and no log lines, since the run has one progress line. It uses
    at most twice the ``cpus`` that the job's actors take: Ray Data asks the autoscaler for plain
    CPUs wherever its tasks are placed, and without a limit it would start nodes of other groups.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    silence_progress_warning()
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.execution_options.resource_limits = ExecutionResources.for_limits(
        cpu=max(1.0, 2 * cpus)
    )
    with DataContext.current(context):
        yield context
