"""The workers of a training as one of them sees the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessGroup:
    """``rank`` of ``size`` workers, each with its own ``device``. The process group is Ray Train's:
    gloo on CPUs, nccl on GPUs.

    ``alone``: one process without a group, without Ray Train and without DeepSpeed.
    """

    rank: int
    size: int
    device: torch.device
    alone: bool = False

    @classmethod
    def single(cls, device: torch.device) -> ProcessGroup:
        return cls(0, 1, device, alone=True)

    @classmethod
    def current(cls, device: torch.device) -> ProcessGroup:
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The elementwise sum over all workers, on the CPU."""
        if self.alone:
            return tensor.cpu()
        tensor = tensor.to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu()

    def barrier(self) -> None:
        if not self.alone:
            dist.barrier()


def disable_operator_builds() -> None:
    """Keep DeepSpeed from compiling an operator on CPUs when it meets the process group: half a
    minute, and a compiler, for nothing.

    That operator (deepspeed_shm_comm) speeds up ``inference_all_reduce``, which training never
    calls. DeepSpeed asks its table of compatible operators before it builds one, and keeps edits to
    that table.
    """
    import deepspeed.ops  # here, since the driver reads this module too

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__ = {}
