"""Start and stop the endpoint of a student."""

from __future__ import annotations

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

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.errors import UserError
from qcrd_ray.models.student_folder import StudentFolder
from qcrd_ray.recipe import RayRecipe, ServingRecipe
from qcrd_ray.serving import auth as doors

APP = "qcrd-student"
PROXY_GRACE_S = 10.0  # the replica's own limit comes first, and its answer says what happened


def check(recipe: ServingRecipe) -> None:
    """What can be known of the endpoint before a run: its key is there if its address needs one,
    and nothing else listens there.

    Raises:
        UserError: names the field.
    """
    doors.check_host(recipe.host, key=doors.read_key(recipe))
    # on a running Ray it may be our own Serve that listens
    if recipe.port and not ray.is_initialized():
        _check_free(recipe.host, recipe.port)


def start(student: Path, recipe: ServingRecipe) -> str:
    """Serve the student on the connected Ray, and return its URL once it answers.

    Raises:
        UserError: no student folder, an address that other machines can reach without a key, a port
            that is taken, or a Ray Serve
            that already listens elsewhere.
        MissingResource: the cluster cannot hold the replicas.
    """
    folder = StudentFolder.open(student)
    doors.check_host(recipe.host, key=doors.read_key(recipe))
    timeout_s = RayRecipe().schedule_timeout_s
    cluster.wait_for_resources(
        bundles(recipe), what="the endpoint (serve.replicas)", timeout_s=timeout_s
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    port = _listen(recipe)
    from qcrd_ray.serving.application import build

    keys = recipe.model_dump(exclude={"host", "port"}, exclude_unset=True)
    if recipe.api_key_file:
        # replicas run in another directory
        keys["api_key_file"] = str(expand_path(recipe.api_key_file).absolute())
    serve.run(build({"student": str(folder.path), **keys}), name=APP, route_prefix="/")
    return f"http://{_in_url(recipe.host)}:{port}"


def bundles(recipe: ServingRecipe) -> list[cluster.Bundle]:
    """What the endpoint takes of the cluster from its start, one bundle per replica."""
    return [recipe.replica.bundle] * recipe.replicas


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


def headers(recipe: ServingRecipe) -> dict[str, str]:
    """What a caller of this endpoint sends along: its key, where it has one."""
    key = doors.read_key(recipe)
    return {"Authorization": f"Bearer {key}"} if key else {}


def example(url: str, recipe: ServingRecipe) -> str:
    """A command that asks the endpoint at ``url`` a question of its own kind. It reads the key
    where the endpoint does.
    """
    request = urllib.request.Request(f"{url}/v1/task", headers=headers(recipe))
    with urllib.request.urlopen(request, timeout=30) as response:
        task = json.load(response)
    body = {"question": task["example"]["question"], "rationale": True}
    if task["example"]["choices"]:
        body["choices"] = task["example"]["choices"]
    key = ""
    if doors.read_key(recipe):
        held = (
            f"$(cat {shlex.quote(recipe.api_key_file)})"
            if recipe.api_key_file
            else f"${recipe.api_key_env}"
        )
        key = f' -H "Authorization: Bearer {held}"'
    return (
        f"curl {url}/v1/predict{key} -H 'Content-Type: application/json' -d"
        f" {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def _listen(recipe: ServingRecipe) -> int:
    """Have Ray Serve listen where the recipe says; the port it got. Its address is one for the
    whole cluster, set when it starts.
    """
    running = _running_http()
    if running is not None:
        host, port = running
        if host == recipe.host and recipe.port in (0, port):
            return port
        raise UserError(
            "Ray Serve on this cluster"
            f" {f'already listens on {host}:{port}' if host else 'runs without HTTP'}, and it has"
            " one address only: give serve.host and serve.port that address, or stop what runs"
            " there (`serve shutdown`)"
        )
    port = recipe.port or _free_port(recipe.host)
    _check_free(recipe.host, port)
    serve.start(
        http_options=HTTPOptions(
            host=recipe.host, port=port, request_timeout_s=recipe.request_timeout_s + PROXY_GRACE_S
        ),
        proxy_location="HeadOnly",
    )
    return port


def _running_http() -> tuple[str | None, int] | None:
    """(host, port) of a Ray Serve that runs on this cluster, host None where its HTTP is off; None
    where none runs.
    """
    # no public call tells a running Serve's address
    client = _get_global_client(raise_if_no_controller_running=False)
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
            raise UserError(
                f"serve.port: {host}:{port} is not free ({error.strerror}); give another port, or 0"
                " for a free one"
            ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
