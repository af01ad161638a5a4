"""A real process group for tests of DeepSpeed's engines."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from qcrd_ray.training.process_group import ProcessGroup, disable_operator_builds


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """A real group of one worker, so that its engines are DeepSpeed's."""
    pytest.importorskip("deepspeed")
    store = tmp_path_factory.mktemp("group") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("LOCAL_RANK", "0")  # as Ray Train sets it
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
        disable_operator_builds()
        yield ProcessGroup.current(torch.device("cpu"))
        dist.destroy_process_group()
        forget_groups()


def forget_groups() -> None:
    """Make DeepSpeed forget its groups, which it keeps after torch's have ended."""
    from deepspeed.comm import comm
    from deepspeed.utils import groups

    comm.cdb = None
    for name, value in vars(groups).items():
        if isinstance(value, dist.ProcessGroup):
            setattr(groups, name, None)
