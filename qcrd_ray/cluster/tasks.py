"""One function over many items as Ray tasks, for work that reads and writes files.

What flows back is small. The files that the tasks write must be on storage that they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 256  # tasks that are submitted and not finished: a million need no million objects


def map_tasks(
    function: Callable[[T], R], items: Sequence[T], **options: Any
) -> Iterator[tuple[T, R]]:
    """Each item with ``function(item)``, as they finish. One item alone is done in this process.

    Ray runs a task again whose worker died, so ``function`` must be one that can be repeated.

    Args:
        function: picklable; what it raises is raised here.
        options: of `ray.remote`, such as ``num_cpus``.
    """
    if len(items) <= 1:
        yield from ((item, function(item)) for item in items)
        return

    def call(item: T) -> R:  # Ray takes no functools.partial
        return function(item)

    task = ray.remote(**options)(call) if options else ray.remote(call)
    waiting = iter(items)
    running: dict[Any, T] = {}
    try:
        while True:
            while len(running) < AT_ONCE and (item := next(waiting, None)) is not None:
                running[task.remote(item)] = item
            if not running:
                return
            (done,), _ = ray.wait(list(running), num_returns=1)
            item = running.pop(done)
            try:
                yield item, ray.get(done)
            except RayTaskError as error:
                raise error.as_instanceof_cause() from None
    finally:
        for reference in running:
            ray.cancel(reference)
