"""A served teacher's lease: on a cluster of others too, it ends with the driver that started it.

A Ray Serve application belongs to the cluster. A driver that is killed, as `ray job stop` does
after a few seconds, would leave its teacher's replicas there, and nobody uses their GPUs. So a
detached actor, the keeper, watches one that lives as long as the driver, and deletes the
application when that is gone.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from typing import Any

import ray
from ray import serve
from ray.actor import ActorProxy
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError

POLL_S = 5.0
_NAMESPACE = "qcrd_ray"
_ON_ANY_NODE: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1}

log = logging.getLogger(__name__)


class Heartbeat:
    """Lives as long as its driver: where its node dies alone, Ray starts it again."""

    @ray.method
    def beat(self) -> None:
        """Answer."""


class Keeper:
    """Deletes ``application`` once the actor ``heartbeat`` is dead, and ends itself.

    ``shut_down``: Ray Serve runs for this application alone, and is then shut down.
    """

    def __init__(self, heartbeat: str, application: str, *, shut_down: bool) -> None:
        self._heartbeat, self._application, self._shut_down = heartbeat, application, shut_down
        self._deleting = threading.Lock()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    @ray.method
    def started(self) -> None:
        """Answer, so that who started it knows that it keeps."""

    @ray.method
    def let_go(self) -> None:
        """Delete nothing any more; a deletion that has begun is waited for."""
        self._deleting.acquire()

    def _keep(self) -> None:
        while self._driver_lives():
            time.sleep(POLL_S)
        with self._deleting:
            log.warning("the driver of %s is gone: it is deleted", self._application)
            serve.delete(self._application)
            if self._shut_down and not serve.status().applications:
                serve.shutdown()
        ray.kill(ray.get_runtime_context().current_actor)

    def _driver_lives(self) -> bool:
        try:
            heartbeat: ActorProxy[Heartbeat] = ray.get_actor(self._heartbeat, _NAMESPACE)
            ray.get(heartbeat.beat.remote(), timeout=POLL_S)
        except (ActorDiedError, ValueError):  # no actor has that name any more
            return False
        except (GetTimeoutError, RayActorError):  # busy, or on its way to another node
            return True
        return True


class Lease:
    """Held by a driver for its ``application``, from before it is deployed until :meth:`end`.

    :func:`take_over` comes first.
    """

    def __init__(self, application: str, *, shut_down: bool) -> None:
        self._application = application
        name = f"{application} heartbeat {secrets.token_hex(4)}"
        heartbeat = ray.remote(**_ON_ANY_NODE)(Heartbeat)
        self._heartbeat = heartbeat.options(name=name, namespace=_NAMESPACE).remote()
        ray.get(self._heartbeat.beat.remote())
        keeper = ray.remote(**_ON_ANY_NODE)(Keeper).options(
            name=_keeper(application), namespace=_NAMESPACE, lifetime="detached"
        )
        ray.get(keeper.remote(name, application, shut_down=shut_down).started.remote())

    def end(self) -> None:
        """Let nobody keep the application any more."""
        take_over(self._application)
        ray.kill(self._heartbeat)  # pyright: ignore[reportArgumentType]  # the stub wants no proxy


def take_over(application: str) -> None:
    """End the keeper of ``application``, where there is one: its driver may have died just now."""
    with contextlib.suppress(ValueError, RayActorError):  # there is none, or it has ended
        keeper = ray.get_actor(_keeper(application), namespace=_NAMESPACE)
        ray.get(keeper.let_go.remote())
        ray.kill(keeper)


def _keeper(application: str) -> str:
    return f"{application} keeper"
