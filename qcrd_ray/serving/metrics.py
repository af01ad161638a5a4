"""The endpoint's Prometheus metrics.

Each replica counts for itself; one scrape shows all, each with the label `replica`.

Requests that Ray Serve's proxy answered itself (503 with a full queue, 408 after its own timeout)
never reach a replica: Serve counts those, on each node's Ray metrics port
(`ray_serve_num_http_error_requests` and others).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qcrd_ray.serving.http_errors import CALLER_LEFT

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One replica's numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qcrd_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "qcrd_request_seconds",
            "Seconds from a request's arrival to its last byte.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "qcrd_requests_in_progress",
            "Requests inside the replica: waiting for a batch or being answered.",
            registry=self.registry,
        )
        self.batches = Histogram(
            "qcrd_batch_size",
            "Requests that were answered together.",
            ["work"],
            buckets=_SIZES,
            registry=self.registry,
        )
        self.tokens = Counter(
            "qcrd_tokens", "Tokens read and written.", ["kind"], registry=self.registry
        )

    def families(self) -> list[Metric]:
        """The numbers now, ready to be sent to another replica."""
        return list(self.registry.collect())


def exposition(replicas: Mapping[str, Sequence[Metric]]) -> bytes:
    """Several replicas' metrics in Prometheus's text format.

    Each sample is labelled with its replica.
    """
    merged: dict[str, Metric] = {}
    for replica, families in replicas.items():
        for family in families:
            whole = merged.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            kept = (sample for sample in family.samples if not sample.name.endswith("_created"))
            whole.samples += [
                sample._replace(labels={**sample.labels, "replica": replica}) for sample in kept
            ]
    return generate_latest(_Registry(list(merged.values())))


class _Registry:
    """The part of a registry that `generate_latest` reads."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


class RequestMetrics:
    """ASGI middleware: counts and times every request by its route and its status.

    The routes are those of ``routes``, spelt as they are there.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, routes: Sequence[str]) -> None:
        self.app, self.metrics = app, metrics
        self._exact = {route for route in routes if "{" not in route}
        self._prefixes = {route.partition("{")[0]: route for route in routes if "{" in route}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500  # what Starlette answers when the application raises

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        route, started = self._route(scope["path"]), time.perf_counter()
        self.metrics.in_progress.inc()
        try:
            await self.app(scope, receive, watched)
        except asyncio.CancelledError:
            status = CALLER_LEFT
            raise
        finally:
            self.metrics.in_progress.dec()
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _route(self, path: str) -> str:
        """The route of a path; `other` if there is none.

        A caller must not be able to make a new label with every request.
        """
        if path in self._exact:
            return path
        return next(
            (route for prefix, route in self._prefixes.items() if path.startswith(prefix)), "other"
        )
