"""The process group of a training: rank, size and device of one worker, and its collectives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessGroup:
    """Worker ``rank`` of ``size``, with its own ``device``.

    Ray Train makes the group: gloo on CPUs, nccl on GPUs. ``alone``: one process without a group,
    without Ray Train and without DeepSpeed.
    """

    rank: int
    size: int
    device: torch.device
    alone: bool = False

    @classmethod
    def single(cls, device: torch.device) -> ProcessGroup:
        """The group of a process that trains alone."""
        return cls(0, 1, device, alone=True)

    @classmethod
    def current(cls, device: torch.device) -> ProcessGroup:
        """The group that torch.distributed was initialised with."""
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The elementwise sum over all workers, on the CPU. All workers call it."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def min(self, tensor: torch.Tensor) -> torch.Tensor:
        """The elementwise minimum over all workers, on the CPU. All workers call it."""
        return self._reduce(tensor, dist.ReduceOp.MIN)

    def _reduce(self, tensor: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
        if self.alone:
            return tensor.cpu()
        tensor = tensor.to(self.device, copy=True)  # the reduction is in place
        dist.all_reduce(tensor, operation)
        return tensor.cpu()

    def barrier(self) -> None:
        """Wait for all workers."""
        if not self.alone:
            dist.barrier()


def use_tf32(enabled: bool) -> None:
    """Whether this process multiplies float32 matrices in TF32 on GPUs that have it.

    TF32 has the range of float32 and 10 bits of mantissa; sums are float32. Two to eight times as
    fast. CPUs compute as before.
    """
    torch.backends.cuda.matmul.fp32_precision = "tf32" if enabled else "ieee"


def disable_operator_builds() -> None:
    """Keep DeepSpeed from compiling an operator on CPUs when it meets the process group.

    The build takes half a minute and needs a compiler. The operator (deepspeed_shm_comm) speeds up
    ``inference_all_reduce``, which training never calls. DeepSpeed looks an operator up in its
    table of compatible operators before it builds one: an empty table prevents it.
    """
    import deepspeed.ops  # here, because the driver imports this module too

    if not torch.cuda.is_available():
        # set by deepspeed.ops itself, from a name that its stub does not show
        deepspeed.ops.__compatible_ops__ = {}  # pyright: ignore[reportAttributeAccessIssue]
