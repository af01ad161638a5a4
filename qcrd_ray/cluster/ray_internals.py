"""Every use of Ray that is not part of its public interface, each with the reason.

They were checked against the source of Ray :data:`CHECKED_RAY`.
tests/unit/cluster/test_ray_internals.py fails when Ray's version changes, when one of them has
gone, and when a public way exists instead.

Ray is imported inside the functions, so that reading a recipe or a run folder does not load it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

CHECKED_RAY = "2.60.0"

PROXY_START_S = 60.0  # that a proxy of Ray Serve may take to start

# Ray Train's list of the checkpoints of a run, in the run's storage folder. Ray writes it in place,
# and cannot read it after a kill in that instant.
TRAIN_CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"

# Ray sets this variable for the entrypoint of a submitted job, and nowhere else.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def in_submitted_job() -> bool:
    """Whether this process is the entrypoint of a job from `ray job submit`.

    The public runtime context knows the submission's id only once Ray is connected, and the run
    folder is checked before that.
    """
    return _JOB_CONFIG in os.environ


def listen_on_loopback() -> None:
    """Have a Ray that this process starts later listen on the loopback alone, on every platform.

    Ray does so on macOS and Windows. On Linux its servers, workers and metrics listen on all
    interfaces, and an address that `ray.init` is given is turned into the one that others reach. It
    is a node's address that decides, and this constant decides that.
    """
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def sessions_in(folder: Path) -> dict[str, str]:
    """Arguments of `ray.init` for a Ray whose session folders lie in ``folder``/ray.

    The public way, RAY_TMPDIR, would reach every process that is started from here, and hide a
    cluster that `ray start` began on this machine.
    """
    return {"_temp_dir": str(folder / "ray")}


def started_ray_here() -> bool:
    """Whether this process started the Ray that it is connected to: one node, no autoscaler.

    `ray.init` reports addresses alone, which are the same for a Ray that was joined.
    """
    import ray._private.worker

    node = ray._private.worker._global_node
    return node is not None and node.is_head()


def dashboard_url() -> str | None:
    """host:port of the connected cluster's dashboard and job server, None where it has none.

    Public only as a result of `ray.init`, which may have been called elsewhere
    (ray-project/ray#52629).
    """
    import ray._private.worker

    return ray._private.worker.get_dashboard_url() or None


def head_node() -> dict[str, Any]:
    """The entry of the cluster's head in `ray.nodes()`.

    The head alone has the resource `node:__internal_head__`; `ray.nodes()` has no field for it.
    """
    import ray

    return next(
        node
        for node in ray.nodes()
        if node["Alive"] and "node:__internal_head__" in node["Resources"]
    )


def autoscaler_config() -> dict[str, Any] | None:
    """The configuration of the connected cluster's autoscaler, as `ray up` takes it.

    Read on the head, from the command line of the head's monitor process: Ray keeps the path of the
    file nowhere else. {} where the cluster has no autoscaler; None where it runs elsewhere (the
    head of a KubeRay cluster has no monitor).
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_head = NodeAffinitySchedulingStrategy(head_node()["NodeID"], soft=False)
    read = ray.remote(num_cpus=0)(_read_autoscaler_config).options(scheduling_strategy=on_head)
    return ray.get(read.remote(ray.get_runtime_context().gcs_address))


def _read_autoscaler_config(gcs_address: str) -> dict[str, Any] | None:
    import psutil
    import yaml

    option = "--autoscaling-config="
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in arguments:
            continue
        if not any(argument.endswith("/monitor.py") for argument in arguments):
            continue
        for argument in arguments:
            if argument.startswith(option):
                path = Path(argument.removeprefix(option)).expanduser()
                return yaml.safe_load(path.read_text())
        return {}
    return None


def serve_runs() -> bool:
    """Whether Ray Serve runs on the connected cluster.

    `serve.status` gives the same empty status for a Serve without applications and for none.
    """
    return _serve_client() is not None


def serve_address() -> tuple[str | None, int] | None:
    """(host, port) that a running Ray Serve listens on; None where no Serve runs.

    The host is None where Serve runs without HTTP. Serve's own `get_serve_details` needs the
    dashboard, which a local Ray does not start.
    """
    from ray.serve.config import ProxyLocation

    if (client := _serve_client()) is None:
        return None
    http = client.http_config
    return (None if http.location == ProxyLocation.Disabled else http.host), http.port


def prepare_serve_proxies() -> None:
    """Set up the proxies of a Ray Serve that is started later, by two variables in no document.

    They get :mod:`qcrd_ray.cluster.serve_door` as a layer: `HTTPOptions.middlewares` was removed,
    and an application's own middleware runs behind the proxy. And they get `PROXY_START_S` to
    start: Serve kills one that is not ready after 5 s, which on a busy machine is before it has
    imported anything, and `serve.start` raises the killed actor's error. A user's values are kept.
    """
    os.environ.setdefault(
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "qcrd_ray.cluster.serve_door:layers"
    )
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", f"{PROXY_START_S:g}")


def _serve_client() -> Any:
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False)


def poll_train_workers(*, every_s: float) -> None:
    """Set how often Ray Train looks at its workers; its default is 2 s. Call it before training.

    A shorter interval shows a round's report and the end of training sooner. No argument sets it,
    and the variable is documented in Ray's source only. A value that the user has set is kept.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", f"{every_s:g}")


def silence_progress_warning() -> None:
    """Keep Ray Data from warning that its progress bars are off; they are off on purpose.

    The warning has a logger of its own below the `ray.data` loggers, whose name is not public.
    """
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def run_cpu_engine_in_process() -> None:
    """Let Ray's LLM server run vLLM on CPUs in one process.

    Call it in the replica, before the engine is made. Ray sets vLLM's multi-process executor for
    every CPU engine, whatever `engine_kwargs` say (ray-project/ray#58334). Its two processes spin
    while they wait for each other: on two cores that is half the machine.
    """
    from ray.llm._internal.serve.engines.vllm import vllm_models

    vllm_models.EXECUTOR_BACKEND_MP = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def skip_llm_telemetry() -> None:
    """Keep Ray's LLM server from starting the actor that gathers what it reports to Ray's makers.

    Call it in the replica, before the engine starts. The replica waits for that actor, which
    imports Ray's LLM library for it: three seconds of a start. No setting leaves it out, not even
    RAY_USAGE_STATS_ENABLED.
    """
    from ray.llm._internal.serve.core.server import llm_server

    name = "push_telemetry_report_for_all_models"  # that it imported: a plain = fails type checks
    setattr(llm_server, name, lambda **_: None)


def skip_model_download(**arguments: Any) -> Any:
    """A callback of Ray's LLM server for a model that lies in a folder already; used by its name.

    The download step runs in a process of its own on each node, which imports vLLM before it finds
    that there is nothing to download: ten seconds of a start. Ray's callbacks are not public yet
    (ray-project/ray#60906).
    """
    from ray.llm._internal.common.callbacks.base import CallbackBase

    class SkipModelDownload(CallbackBase):
        async def on_before_node_init(self) -> None:
            self.ctx.run_init_node = False

    return SkipModelDownload(**arguments)


SKIP_MODEL_DOWNLOAD = f"{__name__}.{skip_model_download.__name__}"  # as `callback_class` takes it
