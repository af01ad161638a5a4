"""The Ray Serve application: replicas that each hold the student, and batch what arrives together.

    serve run qcrd_ray.serving.application:build student=<folder>

The same builder serves `qcrd serve`, `serve deploy` and KubeRay's RayService.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from qcrd_ray.cluster.ray_internals import serve_address
from qcrd_ray.errors import UserError
from qcrd_ray.inference.answering import AnswerRequest, JudgeRequest, ScoreRequest, Student
from qcrd_ray.inference.heads import HeadAnswer
from qcrd_ray.inference.select import vllm_share
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving import auth
from qcrd_ray.serving.arguments import open_student, read_arguments
from qcrd_ray.serving.batching import Batcher
from qcrd_ray.serving.health import Health
from qcrd_ray.serving.http_errors import RETRY_AFTER_S
from qcrd_ray.serving.metrics import Metrics, exposition
from qcrd_ray.serving.routes import make_app
from qcrd_ray.serving.service import Service

DEPLOYMENT = "student"
# far above any replica's queue, which is its own: see serving/admission.py
MAX_ONGOING_REQUESTS = 10_000
DRAIN_S = 10.0  # beyond the longest request, before a leaving replica is killed
# a new version's replicas start before old ones leave: at least one more than asked for
SURGE_PERCENT = 25
# attempts before a deployment counts as failed: what breaks a start here seldom passes by itself
STARTS = 3
SCRAPE_TIMEOUT_S = 5.0


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class StudentEndpoint:
    """One replica: the student of ``folder``, loaded and warmed up before its first request."""

    def __init__(self, folder: str, recipe: ServingRecipe, *, key_expected: bool) -> None:
        """Load the student.

        Args:
            key_expected: whether the builder found a key. A replica whose node has none must then
                not serve without it.
        """
        self.key = replica_key(recipe, expected=key_expected)
        self.student = Student(
            open_student(folder, recipe),
            engine=recipe.engine,
            batch_size=recipe.max_batch_size,
            max_tokens=recipe.max_output_tokens,
            gpu_memory_utilization=memory_share(recipe),
        )
        self.metrics, self.health = (
            Metrics(),
            Health(
                stuck_after_s=2 * recipe.request_timeout_s,
                # one batch of each kind at a time; a concurrent engine takes so many texts at once
                threads=4 * recipe.max_batch_size,
            ),
        )
        batched = partial(Batcher, max_size=recipe.max_batch_size, wait_s=recipe.batch_wait_s)
        self._write_together = batched(self._write_batch)
        self.service = Service(
            self.student,
            recipe,
            write=self._write,
            score=batched(self._score_batch),
            judge=batched(self._judge_batch),
            metrics=self.metrics,
        )
        self.student.warm_up()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_app(
            self.service, key=self.key, trouble=lambda: self.health.trouble, scrape=self._scrape
        )

    async def check_health(self) -> None:
        """Ray Serve replaces a replica that raises here three times in a row."""
        await self.health.check(self.student.warm_up)

    def families(self) -> tuple[str, list[Metric]]:
        """This replica's name and metrics, for the replica that answers a scrape."""
        return serve.get_replica_context().replica_id.unique_id, self.metrics.families()

    async def _write(self, request: AnswerRequest) -> list[HeadAnswer]:
        if self.student.engine.concurrent:  # it batches by itself, token by token
            return (await self.health.run("write", partial(self.student.generate, [request])))[0]
        return await self._write_together(request)

    async def _write_batch(self, requests: list[AnswerRequest]) -> list[list[HeadAnswer]]:
        self.metrics.batches.labels("write").observe(len(requests))
        return await self.health.run("write", partial(self.student.generate, requests))

    async def _score_batch(self, requests: list[ScoreRequest]) -> list[float]:
        self.metrics.batches.labels("score").observe(len(requests))
        return await self.health.run("score", partial(self.student.score, requests))

    async def _judge_batch(self, requests: list[JudgeRequest]) -> list[list[float]]:
        self.metrics.batches.labels("judge").observe(len(requests))
        return await self.health.run("judge", partial(self.student.judge_samples, requests))

    async def _scrape(self) -> bytes:
        handle = serve.get_deployment_handle(
            DEPLOYMENT, app_name=serve.get_replica_context().app_name
        )
        families = await handle.broadcast("families").results_async(
            timeout_s=SCRAPE_TIMEOUT_S, return_exceptions=True
        )
        # a replica that just died has no numbers
        return exposition(dict(one for one in families if not isinstance(one, RayActorError)))


def build(args: Mapping[str, Any]) -> serve.Application:
    """Build the application, for `serve run` and Serve's config files.

    Args:
        args: `student`, its folder, and the keys of the recipe's `serve` section without host and
            port.

    Raises:
        UserError: names the argument that is wrong, or says why the bearer key cannot be read.
    """
    folder, recipe = read_arguments(args)
    key_expected = auth.read_key(recipe) is not None
    options: dict[str, Any] = {"num_replicas": recipe.replicas}
    if recipe.max_replicas is not None and recipe.max_replicas > recipe.replicas:
        scaling = AutoscalingConfig(
            min_replicas=recipe.replicas,
            max_replicas=recipe.max_replicas,
            target_ongoing_requests=recipe.max_batch_size,
        )
        options = {"autoscaling_config": scaling}
    deployment = StudentEndpoint.options(
        **options,
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        # in a proxy, between replicas: a restart or a new version. It holds what they would hold
        max_queued_requests=recipe.max_queued_requests * (recipe.max_replicas or recipe.replicas),
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        graceful_shutdown_timeout_s=recipe.request_timeout_s + DRAIN_S,
        max_surge_percent=SURGE_PERCENT,
        max_constructor_retry_count=STARTS,
        ray_actor_options=recipe.replica.options,
    )
    return deployment.bind(str(folder.path), recipe, key_expected=key_expected)


def memory_share(recipe: ServingRecipe) -> float | None:
    """The share of a GPU's memory that vLLM may take in one replica; None: there is no GPU."""
    share = vllm_share(recipe.replica.gpus)
    return share and (recipe.gpu_memory_utilization or share)


def replica_key(recipe: ServingRecipe, *, expected: bool) -> str | None:
    """The bearer key as this replica's node holds it.

    `serve run` and `serve deploy` know no serve.host, so the replica asks where Serve listens.

    Raises:
        UserError: a key is ``expected`` and this node has none, or other machines can reach Ray
            Serve and there is none.
    """
    key = auth.read_key(recipe)
    if expected and key is None:
        raise UserError(
            f"serve.api_key_env: this node's environment has no {recipe.api_key_env}; every node"
            " that serves needs it"
        )
    host, _ = serve_address() or (None, 0)
    if host is not None:
        auth.check_host(host, key=key)
    return key
