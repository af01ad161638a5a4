"""A served teacher's engine on CPUs: its process imports vLLM while the replica does.

vLLM runs its engine in a process of its own and, inside a Ray actor, spawns it when the replica has
imported vLLM: the same imports, seven seconds of them, one after the other. Here a fork server
imports them meanwhile, and the engine's process is forked from it. It is a clean process without
Ray's threads, so that to fork it is safe. On GPUs vLLM's own way is kept: seconds are little there,
and a fork must not come after CUDA.
"""

from __future__ import annotations

import multiprocessing
from functools import partial
from multiprocessing import forkserver

_IMPORTED = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker"]


def begin_imports() -> None:
    """Start the fork server, before anything of vLLM is imported here."""
    forkserver.set_forkserver_preload(_IMPORTED)
    forkserver.ensure_running()


def fork_engine() -> None:
    """Have vLLM fork its engine from the fork server; no setting of vLLM's names this way."""
    from vllm.v1.engine import utils

    context = partial(multiprocessing.get_context, "forkserver")
    utils.get_mp_context = context  # pyright: ignore[reportPrivateImportUsage]  # not exported there
