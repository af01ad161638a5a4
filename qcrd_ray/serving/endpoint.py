"""Start and stop the endpoint of a student."""

from __future__ import annotations

import ipaddress
import json
import logging
import shlex
import socket
import threading
import urllib.request
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client

from qcrd_ray import cluster
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RayRecipe, ServingRecipe
from qcrd_ray.student_folder import StudentFolder

APP = "qcrd-student"
REQUEST_TIMEOUT_S = 120.0


def check(recipe: ServingRecipe) -> None:
    """What can be known of the endpoint's address before a run: it is the loopback, and nothing else listens there.

    Raises:
        UserError: names the field.
    """
    _check_loopback(recipe.host)
    if recipe.port and not ray.is_initialized():  # on a running Ray it may be our own Serve that listens
        _check_free(recipe.host, recipe.port)


def start(student: Path, recipe: ServingRecipe) -> str:
    """Serve the student on the connected Ray, and return its URL once it answers.

    Raises:
        UserError: no student folder, an address that other machines can reach, a port that is taken, or a Ray Serve that already
            listens elsewhere.
        MissingResource: the cluster cannot hold the replicas.
    """
    folder = StudentFolder.open(student)
    _check_loopback(recipe.host)
    timeout_s = RayRecipe().schedule_timeout_s
    cluster.require(bundles(recipe), what="the endpoint (serve.replicas)", timeout_s=timeout_s)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = _listen(recipe)
    from qcrd_ray.serving.application import build

    keys = recipe.model_dump(exclude={"host", "port"}, exclude_unset=True)
    serve.run(build({"student": str(folder.path), **keys}), name=APP, route_prefix="/")
    return f"http://{_in_url(recipe.host)}:{port}"


def bundles(recipe: ServingRecipe) -> list[cluster.Bundle]:
    """What the endpoint takes of the cluster from its start, one bundle per replica."""
    return [{"CPU": recipe.cpus_per_replica, "GPU": recipe.gpus_per_replica, **recipe.resources_per_replica}] * recipe.replicas


def stop() -> None:
    """Take the endpoint down, and Ray Serve with it where nothing else runs on it."""
    if APP in serve.status().applications:
        serve.delete(APP)
    if not serve.status().applications:
        serve.shutdown()


def wait() -> None:
    """Block until this process is interrupted, and stop the endpoint then."""
    try:
        threading.Event().wait()
    finally:
        stop()


def example(url: str) -> str:
    """A command that asks the endpoint at ``url`` a question of its own kind."""
    with urllib.request.urlopen(f"{url}/v1/task", timeout=30) as response:
        task = json.load(response)
    body = {"question": task["example"]["question"], "rationale": True}
    if task["example"]["choices"]:
        body["choices"] = task["example"]["choices"]
    return f"curl {url}/v1/predict -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


def _check_loopback(host: str) -> None:
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UserError(f"serve.host: {host!r} is no IP address; use 127.0.0.1") from error
    if not loopback:
        raise UserError(
            f"serve.host: other machines could reach {host}, and this endpoint does not ask who is calling. Serve on 127.0.0.1, and put "
            "a proxy that checks its callers in front of it."
        )


def _listen(recipe: ServingRecipe) -> int:
    """Have Ray Serve listen where the recipe says; the port it got. Its address is one for the whole cluster, set when it starts."""
    running = _running_http()
    if running is not None:
        host, port = running
        if host == recipe.host and recipe.port in (0, port):
            return port
        raise UserError(
            f"Ray Serve on this cluster {f'already listens on {host}:{port}' if host else 'runs without HTTP'}, and it has one address "
            f"only: give serve.host and serve.port that address, or stop what runs there (`serve shutdown`)"
        )
    port = recipe.port or _free_port(recipe.host)
    _check_free(recipe.host, port)
    serve.start(http_options=HTTPOptions(host=recipe.host, port=port, request_timeout_s=REQUEST_TIMEOUT_S), proxy_location="HeadOnly")
    return port


def _running_http() -> tuple[str | None, int] | None:
    """(host, port) of a Ray Serve that runs on this cluster, host None where its HTTP is off; None where none runs."""
    client = _get_global_client(raise_if_no_controller_running=False)  # no public call tells a running Serve's address
    if client is None:
        return None
    options = client.http_config
    return (None if options.location == ProxyLocation.Disabled else options.host), options.port


def _free_port(host: str) -> int:
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _check_free(host: str, port: int) -> None:
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"serve.port: {host}:{port} is not free ({error.strerror}); give another port, or 0 for a free one") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
