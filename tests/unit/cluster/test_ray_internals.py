"""Ray's private corners still exist in the installed version, and no public way has taken their
place.

A failure here is a task: read ray_internals.py beside the new Ray, and use the public way where
there is one.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray
from ray import serve

from qcrd_ray.cluster import ray_internals


def source(module: str) -> str:
    """The text of a module of Ray, without importing it."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, f"Ray has no module {module} any more"
    return Path(spec.origin).read_text()


def test_they_were_read_in_the_installed_version():
    assert ray.__version__ == ray_internals.CHECKED_RAY


def test_reading_a_run_folder_does_not_load_ray():
    script = "import sys, qcrd_ray.runs.folder; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class TestCore:
    def test_a_submitted_job_is_known_by_its_variable(self, monkeypatch):
        constants = importlib.import_module("ray._private.runtime_env.constants")
        name = constants.RAY_JOB_CONFIG_JSON_ENV_VAR
        assert "RAY_JOB_CONFIG_JSON_ENV_VAR" in source("ray.dashboard.modules.job.job_supervisor")
        monkeypatch.delenv(name, raising=False)
        assert not ray_internals.in_submitted_job()
        monkeypatch.setenv(name, "{}")
        assert ray_internals.in_submitted_job()

    def test_what_decides_the_address_of_a_local_node(self, monkeypatch):
        from ray._private import ray_constants, services, worker

        monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
        monkeypatch.setattr(worker, "_global_node", None)
        ray_internals.listen_on_loopback()
        assert services.get_node_ip_address() == "127.0.0.1"
        assert "listen" not in str(inspect.signature(ray.init))

    def test_where_sessions_lie_is_no_public_argument_yet(self):
        """The temporary folder is opened to everybody, so that one above it must be private."""
        assert '"_temp_dir"' in source("ray._private.worker")
        assert "temp_dir" not in inspect.signature(ray.init).parameters
        assert "0o0777" in source("ray._common.utils")
        assert "try_to_create_directory(self.temp_dir)" in source("ray._private.node")

    def test_the_node_that_this_process_started(self):
        from ray._private import node, worker

        assert hasattr(worker, "_global_node") and callable(node.Node.is_head)
        if not ray.is_initialized():
            assert not ray_internals.started_ray_here()
        assert not [name for name in dir(ray.runtime_context.RuntimeContext) if "head" in name]

    def test_the_dashboards_url_is_not_public_yet(self):
        from ray._private import worker

        assert callable(worker.get_dashboard_url)
        assert not hasattr(ray.runtime_context.RuntimeContext, "get_dashboard_url")

    def test_the_heads_resource(self):
        from ray._common.constants import HEAD_NODE_RESOURCE_NAME

        assert HEAD_NODE_RESOURCE_NAME == "node:__internal_head__"

    def test_the_monitors_command_line(self):
        services = source("ray._private.services")
        assert '"monitor.py"' in services
        for option in ("--gcs-address=", "--autoscaling-config="):
            assert option in services

    def test_a_monitors_configuration_is_read(self, tmp_path):
        """The command line of a stand-in, since no local Ray starts a monitor with a file."""
        monitor, config = tmp_path / "monitor.py", tmp_path / "cluster.yaml"
        monitor.write_text("input()")
        config.write_text("max_workers: 3\n")
        read = ray_internals._read_autoscaler_config
        assert read("1.2.3.4:5") is None
        for arguments, expected in (
            ([f"--autoscaling-config={config}"], {"max_workers": 3}),
            ([], {}),
        ):
            call = [sys.executable, str(monitor), "--gcs-address=1.2.3.4:5", *arguments]
            with subprocess.Popen(call, stdin=subprocess.PIPE) as process:
                assert read("1.2.3.4:5") == expected
                process.communicate(b"\n", timeout=30)


class TestServe:
    def test_the_client_knows_the_address(self):
        from ray.serve._private.client import ServeControllerClient
        from ray.serve.context import _get_global_client

        parameters = inspect.signature(_get_global_client).parameters
        assert "raise_if_no_controller_running" in parameters
        assert isinstance(ServeControllerClient.http_config, property)

    def test_no_public_call_gives_it_yet(self):
        from ray.serve.schema import ServeStatus

        assert set(ServeStatus.__dataclass_fields__) == {
            "proxies",
            "applications",
            "target_capacity",
        }
        public = {name for name in dir(serve) if "http" in name.lower() or "address" in name}
        assert public <= {"HTTPOptions"}

    def test_the_variable_of_a_proxys_start(self, monkeypatch):
        """Bug guarded: on a busy machine Serve killed each proxy after 5 s, before it had imported
        anything, and the endpoint's start ended in a traceback.
        """
        name = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
        assert f'"{name}", 5.0' in source("ray.serve._private.constants")
        assert "* PROXY_READY_CHECK_TIMEOUT_S" in source("ray.serve._private.proxy_state")
        monkeypatch.delenv(name, raising=False)
        ray_internals.prepare_serve_proxies()
        assert os.environ[name] == "60"


class TestData:
    def test_the_logger_that_warns_of_missing_progress_bars(self):
        text = source("ray.data._internal.progress")
        assert "logging.getLogger(__name__)" in text
        assert "Progress bars disabled" in text


class TestTrain:
    def test_the_name_of_the_list_of_checkpoints(self):
        from ray.train.v2._internal import constants

        name = constants.CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
        assert name == ray_internals.TRAIN_CHECKPOINT_LIST

    def test_the_variable_of_the_poll_interval(self, monkeypatch):
        from ray.train.v2._internal import constants

        name = constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR
        monkeypatch.delenv(name, raising=False)
        ray_internals.poll_train_workers(every_s=0.5)
        assert os.environ[name] == "0.5"
        monkeypatch.setenv(name, "7")
        ray_internals.poll_train_workers(every_s=0.5)
        assert os.environ[name] == "7"
        fields = {name for name in dir(ray.train.RunConfig()) if "interval" in name}
        assert not fields, "an argument may set it now"


class TestLLM:
    def test_ray_still_sets_the_executor_of_a_cpu_engine(self):
        text = source("ray.llm._internal.serve.engines.vllm.vllm_models")
        assert 'EXECUTOR_BACKEND_MP = "mp"' in text
        assert "executor_backend = EXECUTOR_BACKEND_MP" in text
        assert 'engine_kwargs["distributed_executor_backend"] = executor_backend' in text

    def test_vllm_has_the_executor_of_one_process(self):
        if find_spec("vllm") is None:
            pytest.skip("vllm is not installed")
        folder = Path(find_spec("vllm").submodule_search_locations[0])
        text = (folder / "v1" / "executor" / "uniproc_executor.py").read_text()
        assert "class UniProcExecutor" in text

    def test_the_server_still_waits_for_its_telemetry(self):
        text = source("ray.llm._internal.serve.core.server.llm_server")
        assert "push_telemetry_report_for_all_models(all_models=[self._llm_config])" in text
        sent = source("ray.llm._internal.serve.observability.usage_telemetry.usage")
        assert "os.environ" not in sent and "getenv" not in sent, "a setting may leave it out now"

    def test_the_callback_skips_the_download(self):
        from ray.llm._internal.common.utils.import_utils import load_class

        callback = load_class(ray_internals.SKIP_MODEL_DOWNLOAD)(llm_config=None)
        assert callback.ctx.run_init_node
        asyncio.run(callback.run_callback("on_before_node_init"))
        assert not callback.ctx.run_init_node

    def test_callbacks_are_not_public_yet(self):
        import ray.serve.llm

        assert not [name for name in dir(ray.serve.llm) if "callback" in name.lower()]
        assert find_spec("ray.serve.llm.callbacks") is None
