"""A teacher that Ray Serve hosts for the time of a run, and that is asked through a handle.

There is no HTTP proxy: the actors that ask hold a deployment handle, and a run needs no port. The
endpoint of the student may later choose its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from qcrd_ray.cluster.ray_internals import SKIP_MODEL_DOWNLOAD, serve_runs
from qcrd_ray.cluster.resources import (
    Bundle,
    colocate,
    may_have,
    started_ray_here,
    wait_for_resources,
)
from qcrd_ray.data.records import Completion, Question
from qcrd_ray.errors import UserError
from qcrd_ray.models.names import resolve_teacher
from qcrd_ray.recipe import SamplingRecipe, ServeTeacher
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.base import Task
from qcrd_ray.teacher.base import (
    Prompt,
    TeacherAnswer,
    TeacherAway,
    TeacherError,
    TeacherRefusal,
    TeacherRequest,
)
from qcrd_ray.teacher.health import Health, tail
from qcrd_ray.teacher.lease import Lease, take_over
from qcrd_ray.teacher.model import uses_chat
from qcrd_ray.teacher.replica import MODEL_ID, PromptSamples, TeacherReplica

POLL_S = 0.5
CPU_CACHE_BYTES = 1 << 30  # of keys and values; a start writes all of it once
WATCH_S = 10.0  # a request that waits longer looks whether the teacher is still there
# engine options that change the model's answers; the others (parallelism, memory) change its speed
_DECISIVE = (
    "dtype",
    "quantization",
    "revision",
    "tokenizer",
    "tokenizer_revision",
    "hf_overrides",
    "max_model_len",
)

log = logging.getLogger(__name__)


class ServedTeacher:
    """vLLM replicas behind a deployment handle; see :class:`qcrd_ray.teacher.base.Teacher`.

    ``application`` is the name of the Ray Serve application: see :func:`application_name`.
    ``requests_in_flight`` is how many requests all who ask have open at once.
    """

    def __init__(
        self,
        recipe: ServeTeacher,
        sampling: SamplingRecipe,
        *,
        seed: int,
        application: str,
        requests_in_flight: int,
        schedule_timeout_s: float,
    ):
        self._recipe = recipe
        self._seed = seed
        self._requests_in_flight = requests_in_flight
        self._schedule_timeout_s = schedule_timeout_s
        self._sampling = {
            **sampling.model_dump(exclude={"k", "adaptive"}),
            "stop": list(sampling.stop),
        }
        self._application = application
        # set by check() on the driver, and so known to the copies that are sent to the actors
        self._chat: bool | None = None
        self._started = self._ready = False
        self._started_serve = False
        self._lease: Lease | None = None

    def identity(self) -> dict[str, Any]:
        engine = {
            name: value for name, value in self._recipe.engine_kwargs.items() if name in _DECISIVE
        }
        return {"source": "serve", "model": self._recipe.model, "engine": engine}

    def prompt(self, task: Task, question: Question) -> Prompt:
        assert self._chat is not None, "check() comes before prompt()"
        return task.teacher_messages(question) if self._chat else task.teacher_prompt(question)

    def check(self, questions: Iterable[Question]) -> None:
        """Check that the model's config and tokenizer fit each other. Raises UserError."""
        self._chat = uses_chat(self._recipe)

    def deploy(self, report: Report = no_progress) -> None:
        """Have the replicas start; :meth:`start` waits for one.

        Raises:
            MissingResource: the cluster cannot hold a replica.
        """
        if self._started:
            return
        report(0, 0, "the teacher waits for its resources")
        replicas = max(self._recipe.min_replicas, 1)
        what = "the teacher (teacher.min_replicas, teacher.replica, teacher.accelerator)"
        wait_for_resources(
            replica_bundles(self._recipe) * replicas, what=what, timeout_s=self._schedule_timeout_s
        )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        shared = not started_ray_here()  # our own Ray ends with us, and all that runs in it
        if shared:
            take_over(self._application)
        self._started_serve = not serve_runs()
        self._started = True  # from here on there is something to stop
        if shared:
            self._lease = Lease(self._application, shut_down=self._started_serve)
        serve.start(proxy_location="Disabled")
        target = serve.RunTarget(
            deployment(self._recipe, seed=self._seed, requests_in_flight=self._requests_in_flight),
            name=self._application,
            route_prefix=None,
        )
        serve.run_many([target], wait_for_applications_running=False)

    def start(self, report: Report = no_progress) -> None:
        """Deploy and wait until a replica answers.

        Raises:
            MissingResource: the cluster cannot hold a replica.
            UserError: vLLM cannot host the model, or not within `teacher.ready_timeout_s`.
        """
        self.deploy(report)
        if not self._ready:
            self._wait_until_ready(report)
            self._ready = True

    def stop(self) -> None:
        """Delete the application, and shut Ray Serve down where only this teacher needed it."""
        if not self._started:
            return
        self._started = self._ready = False
        if serve_runs():  # else interrupted before it came up
            serve.delete(self._application)
            if self._started_serve and not serve.status().applications:
                serve.shutdown()
        if self._lease is not None:  # the last: a driver that dies before leaves it to the keeper
            self._lease.end()
            self._lease = None

    async def complete(self, requests: Sequence[TeacherRequest]) -> list[TeacherAnswer]:
        samples = requests[0].samples
        try:
            answers = await self._ask(requests)
        except RayTaskError as error:
            if isinstance(error.cause, TeacherRefusal):
                raise TeacherRefusal(str(error.cause)) from error
            raise TeacherError(f"{type(error.cause).__name__}: {error.cause}") from error
        except (RayError, RayServeException) as error:
            await asyncio.to_thread(self.trouble)
            first_line = str(error).partition("\n")[0]
            raise TeacherAway(f"{type(error).__name__}: {first_line}") from error
        counts = [len(answer["samples"]) for answer in answers]
        if counts != [samples] * len(requests):
            raise TeacherError(
                f"asked for {samples} samples of each of {len(requests)} questions, got {counts}"
            )
        return [
            TeacherAnswer(tuple(starmap(_completion, answer["samples"])), answer["prompt_tokens"])
            for answer in answers
        ]

    def trouble(self) -> str:
        """See :meth:`qcrd_ray.teacher.health.Health.trouble`; in any process of the cluster."""
        return self._health.trouble()

    async def _ask(self, requests: Sequence[TeacherRequest]) -> list[PromptSamples]:
        """A replica's samples, unless the teacher dies meanwhile.

        A request without a replica waits in its queue, and would not learn of that.

        Raises:
            Stopped: as :meth:`trouble`.
        """
        prompts = [request.prompt for request in requests]
        sampling = self._sampling | wave_options(requests, seed=self._seed)
        pending = asyncio.ensure_future(_response(self._handle, prompts, sampling))
        try:
            while not (await asyncio.wait({pending}, timeout=WATCH_S))[0]:
                if trouble := await asyncio.to_thread(self.trouble):
                    log.warning(trouble)
            return pending.result()
        finally:
            pending.cancel()

    # These two belong to a process: a copy that is sent to another makes its own.

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_handle", "_health", "_lease")}

    @cached_property
    def _handle(self):
        return serve.get_app_handle(self._application)

    @cached_property
    def _health(self) -> Health:
        return Health(
            lambda: serve.status().applications.get(self._application),
            ready_timeout_s=self._recipe.ready_timeout_s,
        )

    def _wait_until_ready(self, report: Report) -> None:
        start = time.monotonic()
        while (status := serve.status().applications[self._application]).status != "RUNNING":
            waited = time.monotonic() - start
            report(0, 0, f"the teacher starts, {waited:.0f} s")
            reason = (
                "\n".join(deployment.message for deployment in status.deployments.values())
                or status.message
            )
            if status.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise UserError(
                    f"teacher: vLLM could not host {self._recipe.model}:\n{tail(reason)}\n{_logs()}"
                )
            if waited > self._recipe.ready_timeout_s:
                last_lines = f" ({tail(reason)})" if reason else ""
                raise UserError(
                    f"teacher: not ready after {waited:.0f} s (teacher.ready_timeout_s)"
                    f"{last_lines}. {_logs()}"
                )
            time.sleep(POLL_S)


def _logs() -> str:
    sessions = ray.get_runtime_context().get_temp_dir()
    return f"The replica's log lies on its node in {sessions}/session_latest/logs/serve/."


def application_name(run_name: str, *, run: Path) -> str:
    """A name of its own for each run folder: two runs on one cluster must not share a teacher."""
    return f"qcrd-teacher-{run_name}-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}"


def accelerator_of(recipe: ServeTeacher) -> str:
    """`cpu` or `gpu`; `auto` is gpu where the connected cluster has one, or can start a node of it.

    Raises:
        UserError: `auto`, and the cluster's autoscaler is out of sight, as KubeRay's is.
    """
    if recipe.accelerator != "auto":
        return "cpu" if recipe.accelerator == "cpu" else "gpu"
    has_gpu = may_have("GPU")
    if has_gpu is None:
        raise UserError(
            "teacher.accelerator: auto cannot tell whether this cluster can start nodes with GPUs,"
            " and none has one now; set it to gpu, cpu or a type such as A100"
        )
    return "gpu" if has_gpu else "cpu"


def replica_bundles(recipe: ServeTeacher) -> list[Bundle]:
    """The resources of one replica: a bundle per device.

    The first has the replica's own CPUs and resources too; the others are tied to the same group of
    nodes. Ray must be connected where the accelerator is `auto`.
    """
    replica = recipe.replica.bundle
    if accelerator_of(recipe) == "cpu":
        return [replica]
    device = {"GPU": 1.0}
    if recipe.accelerator not in ("auto", "gpu"):
        device[f"accelerator_type:{recipe.accelerator}"] = 0.001
    devices = recipe.engine_kwargs.get("tensor_parallel_size", 1) * recipe.engine_kwargs.get(
        "pipeline_parallel_size", 1
    )
    return [
        {**device, **replica},
        *[{**device, **colocate(recipe.replica.resources)}] * (devices - 1),
    ]


def deployment(recipe: ServeTeacher, *, seed: int, requests_in_flight: int) -> serve.Application:
    """The Serve application: replicas that end when their engine dies, min to max of them."""
    environment = {"VLLM_NO_USAGE_STATS": "1"}
    model = resolve_teacher(recipe.model)
    llm_config: dict[str, Any] = {
        "model_loading_config": {"model_id": MODEL_ID, "model_source": model},
        "engine_kwargs": {
            # vLLM's defaults are those of an endpoint that has callers waiting: half of the texts
            # at once on CPUs, where a run waits for all of them
            "performance_mode": "throughput",
            "seed": seed,
            "trust_remote_code": recipe.trust_remote_code,
            **recipe.engine_kwargs,
        },
        "accelerator_config": {"kind": accelerator_of(recipe)},
        "log_engine_metrics": False,
    }
    if Path(model).is_dir():
        llm_config["callback_config"] = {"callback_class": SKIP_MODEL_DOWNLOAD}
    if accelerator_of(recipe) == "cpu":
        # vLLM's own binding of threads to cores halves its speed where others use the machine too
        threads = str(recipe.replica.cores)
        environment |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": threads,
        }
        llm_config["engine_kwargs"] = {
            "enforce_eager": True,  # compiling costs 25 s of a start
            "kv_cache_memory_bytes": CPU_CACHE_BYTES,
            **llm_config["engine_kwargs"],
        }
        if llm_config["engine_kwargs"]["enforce_eager"]:
            # its sampler would be compiled all the same, for three seconds of the first request
            environment["TORCH_COMPILE_DISABLE"] = "1"
    else:
        # vLLM takes FlashInfer's sampler by the GPU's capability alone, which compiles itself when
        # it first runs and fails without nvcc (vllm-project/vllm#49497)
        environment |= {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        if recipe.accelerator not in ("auto", "gpu"):
            llm_config["accelerator_type"] = recipe.accelerator
    runtime_env = {"env_vars": environment | recipe.env}
    replica = serve.deployment(
        name="teacher",
        max_ongoing_requests=recipe.max_ongoing_requests,
        autoscaling_config={
            "min_replicas": recipe.min_replicas,
            "max_replicas": recipe.max_replicas,
            "target_ongoing_requests": _target_requests(recipe, requests_in_flight),
        },
        placement_group_bundles=[_without_zeros(bundle) for bundle in replica_bundles(recipe)],
        placement_group_strategy="PACK",
        ray_actor_options={
            **recipe.replica.options,
            "runtime_env": runtime_env,
        },
        # a model that cannot be hosted fails at the twentieth attempt too
        max_constructor_retry_count=2,
        health_check_period_s=5.0,
        health_check_timeout_s=60.0,  # a busy engine answers late and is not dead
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=5.0,
    )(TeacherReplica)
    return replica.bind({**llm_config, "runtime_env": runtime_env})


def _target_requests(recipe: ServeTeacher, requests_in_flight: int) -> float:
    """Requests a replica above which Serve adds another one.

    Serve wants ceil(open requests / target) replicas. So the target is a share of what a replica
    takes, and at most what reaches `max_replicas` when all requests are in flight.
    """
    return max(
        1.0, min(0.75 * recipe.max_ongoing_requests, requests_in_flight / recipe.max_replicas)
    )


def wave_options(requests: Sequence[TeacherRequest], *, seed: int) -> dict[str, int]:
    """The number of samples; a seed of its own for a further wave of these questions.

    Without one a request takes the noise that its engine has come to. All replicas begin at the
    engine's seed, so a second replica could repeat what the first one wrote. vLLM draws noise with
    a seed row by row, which is slower, so the first wave has none.
    """
    samples, first = requests[0].samples, requests[0].first
    if not first:
        return {"n": samples}
    asked = [seed, first, *(request.question.id for request in requests)]
    digest = hashlib.sha256(json.dumps(asked).encode()).digest()
    return {"n": samples, "seed": int.from_bytes(digest[:6], "big")}


async def _response(handle: DeploymentHandle, *arguments: Any) -> Any:
    return await handle.ask.remote(*arguments)


def _completion(text: str, finish_reason: str | None, tokens: int, thinking: str) -> Completion:
    return Completion(
        text=text, finish_reason=finish_reason or "stop", tokens=tokens, thinking=thinking
    )


def _without_zeros(bundle: Bundle) -> Bundle:
    return {name: amount for name, amount in bundle.items() if amount}
