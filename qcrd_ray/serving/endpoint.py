"""Start and stop the endpoint of a student."""

from __future__ import annotations

import json
import logging
import shlex
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.cluster.ray_internals import serve_address
from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.data.records import Question
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RayRecipe, ServingRecipe
from qcrd_ray.runs.progress import Report
from qcrd_ray.serving import auth
from qcrd_ray.serving.arguments import open_student
from qcrd_ray.serving.messages import PredictResponse, Query

APP = "qcrd-student"
SCHEDULE_TIMEOUT_S = RayRecipe().schedule_timeout_s  # of an endpoint that no recipe starts
PROXY_GRACE_S = 10.0  # the replica's own limit comes first, and its answer says what happened


def check(recipe: ServingRecipe) -> None:
    """Check what can be known before a run.

    The key must be there if the address needs one, and the port must be free.

    Raises:
        UserError: names the field.
    """
    auth.check_host(recipe.host, key=auth.read_key(recipe))
    # on a running Ray it may be our own Serve that listens
    if recipe.port and not ray.is_initialized():
        _check_free(recipe.host, recipe.port)


def start(
    student: Path, recipe: ServingRecipe, *, schedule_timeout_s: float = SCHEDULE_TIMEOUT_S
) -> str:
    """Serve the student on the connected Ray, and return its URL once it answers.

    Its replicas' resources are waited for as long as ``schedule_timeout_s``
    (`ray.schedule_timeout_s`).

    Raises:
        UserError: no student folder, an address that other machines can reach without a key, a port
            that is taken, or a Ray Serve that already listens elsewhere.
        MissingResource: the cluster cannot hold the replicas.
    """
    folder = open_student(student, recipe)
    auth.check_host(recipe.host, key=auth.read_key(recipe))
    cluster.wait_for_resources(
        bundles(recipe), what="the endpoint (serve.replicas)", timeout_s=schedule_timeout_s
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
    """The endpoint's demands on the cluster when it starts: one bundle for each replica."""
    return [recipe.replica.bundle] * recipe.replicas


def stop() -> None:
    """Take the endpoint down, and Ray Serve with it where nothing else runs on it."""
    if APP in serve.status().applications:
        serve.delete(APP)
    if not serve.status().applications:
        serve.shutdown()


def wait() -> None:
    """Block until this process is interrupted, and stop the endpoint then.

    What it has taken is answered. New requests get 503 with Retry-After from Ray Serve's proxies
    (see :mod:`qcrd_ray.cluster.serve_door`) until those leave too; then no connection is taken.
    """
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        stop()


def ask_once(
    student: Path,
    recipe: ServingRecipe,
    question: Question,
    report: Report,
    *,
    schedule_timeout_s: float = SCHEDULE_TIMEOUT_S,
) -> PredictResponse:
    """Serve the student on a free port, ask it over HTTP as any client would, and stop it again.

    With a judge in the folder its samples vote too. ``schedule_timeout_s``: see :func:`start`.
    """
    report(0, 2, "starting the endpoint")
    # a busy port must not end a run at its last stage
    url = start(
        student, recipe.model_copy(update={"port": 0}), schedule_timeout_s=schedule_timeout_s
    )
    try:
        report(1, 2, "asking one question")
        task = _task(url, recipe)
        query = Query(
            question=question.question,
            choices=list(question.choices),
            rationale=True,
            quality=task["quality"],
            samples=task["judge"] and task["judge"]["samples"],
        )
        request = urllib.request.Request(
            f"{url}/v1/predict",
            query.model_dump_json().encode(),
            {"Content-Type": "application/json", **headers(recipe)},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = PredictResponse.model_validate_json(response.read())
    finally:
        stop()
    report(2, 2, "answered")
    return answer


def headers(recipe: ServingRecipe) -> dict[str, str]:
    """The HTTP headers that a caller of this endpoint needs: its key, where it has one."""
    key = auth.read_key(recipe)
    return {"Authorization": f"Bearer {key}"} if key else {}


def example(url: str, recipe: ServingRecipe) -> str:
    """A curl command that asks the endpoint at ``url`` an example question of its task.

    It reads the key where the endpoint does.
    """
    first = _task(url, recipe)["to_try"][0]
    body = {"question": first["question"], "rationale": True}
    if first["choices"]:
        body["choices"] = first["choices"]
    curl = "curl"
    if auth.read_key(recipe):
        held = (
            f"$(cat {shlex.quote(recipe.api_key_file)})"
            if recipe.api_key_file
            else f"${recipe.api_key_env}"
        )
        # a header among curl's arguments would stand in the list of processes; printf is no process
        curl = f"""printf 'header = "Authorization: Bearer %s"' "{held}" | curl --config -"""
    return (
        f"{curl} {url}/v1/predict -H 'Content-Type: application/json' -d"
        f" {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def _task(url: str, recipe: ServingRecipe) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/v1/task", headers=headers(recipe))
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _listen(recipe: ServingRecipe) -> int:
    """Have Ray Serve listen at the recipe's address, and return its port.

    Ray Serve has one address for the whole cluster, which is set when it starts.
    """
    running = serve_address()
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
