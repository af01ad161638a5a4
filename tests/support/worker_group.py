"""A group of real training workers on this machine, without Ray Train: processes on gloo."""

from __future__ import annotations

import os
from pathlib import Path

import torch


class Killed(Exception):
    """The worker died."""


def run_workers(jobs: list, *, workers: int, store: Path, killed_after: str | None = None) -> None:
    """Train each of ``jobs`` on ``workers`` processes, from its newest checkpoint where it has one.

    All of them die after the checkpoint named ``killed_after``.
    """
    torch.multiprocessing.spawn(_work, (workers, jobs, str(store), killed_after), nprocs=workers)


def _work(rank: int, workers: int, jobs: list, store: str, killed_after: str | None) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=workers
    )
    import ray.train

    from qcrd_ray.training.checkpoints import CHECKPOINTS, find_checkpoint
    from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds
    from qcrd_ray.training.worker import Worker

    disable_operator_builds()
    process_group = ProcessGroup.current(torch.device("cpu"))

    def report(metrics, *, checkpoint, checkpoint_upload_mode):
        newest = [path.name for path in folder.iterdir()]
        process_group.barrier()
        if killed_after in newest:
            raise Killed

    ray.train.report = report
    for job in jobs:
        folder = job.folder / CHECKPOINTS
        try:
            Worker(job, process_group, find_checkpoint(job.folder, process_group)).run()
        except Killed:
            continue
    torch.distributed.destroy_process_group()
