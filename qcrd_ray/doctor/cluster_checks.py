"""Checks of the connected cluster: resources for each stage, ports, a shared run folder.

A check returns a line about what it found, or raises :class:`UserError` with what to do.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ray.job_submission import JobSubmissionClient

from qcrd_ray import rationales, serving
from qcrd_ray.cluster import resources as cluster
from qcrd_ray.cluster.nodes import cannot_listen, live_nodes, node_name, on_nodes, sees
from qcrd_ray.cluster.ray_internals import dashboard_url, head_node, serve_runs
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe, ServingRecipe
from qcrd_ray.runs.folder import resolve
from qcrd_ray.training.job import bundles as training_bundles
from qcrd_ray.training.job import objectives_of

STAGES = ("generate", "train", "evaluate", "serve")


def check_cluster(recipe: Recipe, stages: Sequence[str] = STAGES) -> str:
    """Each stage's demands fit the cluster, or what it can grow to. No node is started for it.

    Raises:
        MissingResource: names the stage, the resource, how much is asked and how much there is.
    """
    for stage in stages:
        what, bundles = demands(recipe, stage)
        cluster.check_feasible(bundles, what=what)
    return f"{', '.join(stages)} can be scheduled"


def demands(recipe: Recipe, stage: str) -> tuple[str, list[dict[str, float]]]:
    """(name for errors, one resource bundle per process), as the stage itself requests them."""
    if stage == "generate":
        return rationales.DEMANDS, rationales.bundles(recipe)
    if stage == "train":
        wanted = training_bundles(recipe, objectives_of(recipe))
        return "training (train.workers, train.worker, negatives.samplers)", wanted
    if stage == "evaluate":
        wanted = [recipe.evaluate.worker.bundle] * recipe.evaluate.workers
        return "evaluation (evaluate.workers, evaluate.worker)", wanted
    assert stage == "serve", stage
    return "the endpoint (serve.replicas)", serving.bundles(recipe.serve)


def check_ports(recipe: Recipe) -> str:
    """The job server answers, and the endpoint's port on the head is free or Ray Serve's own."""
    url = dashboard_url()
    if url:
        try:
            JobSubmissionClient(f"http://{url}")
        except (ConnectionError, RuntimeError) as error:
            raise UserError(
                f"ports: the job server at {url} does not answer:"
                f" {str(error).strip().splitlines()[0]}\nOpen that port between the nodes, or start"
                " the head with --dashboard-host=0.0.0.0."
            ) from error
    jobs = (
        f"the job server answers at {url}"
        if url
        else "this Ray has no job server (`ray start --head --include-dashboard=true`)"
    )
    return f"{jobs}; {_check_serve_port(recipe.serve)}"


def check_shared_folder(recipe: Recipe) -> str:
    """Every live node sees the run folder: a file written here can be read on each.

    Nodes that join later are not asked.

    Raises:
        UserError: names the nodes that do not see it, or do not answer.
    """
    nodes = live_nodes()
    if len(nodes) == 1:
        return "there is one node"
    folder = resolve(recipe.run)
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    word = secrets.token_hex(8)
    probe = nearest / f".seen-by-all-{word}"
    try:
        probe.write_text(word)
        answers = on_nodes(nodes, sees, str(probe), word)
    except OSError as error:
        raise UserError(
            f"run: cannot write in {nearest}: {error.strerror}; name a folder that you may write in"
        ) from error
    finally:
        probe.unlink(missing_ok=True)
    if blind := [node for node, sees in answers if not sees]:
        raise UserError(
            f"run: {nearest} is another folder on {', '.join(map(node_name, blind))} than on the"
            " node that runs this. Mount one storage under that path on every node (NFS, FSx,"
            " Filestore), or name a folder that is shared with run (for a URI: with QCRD_WORK)"
        )
    return f"{nearest} is the same folder on all {len(answers)} live nodes"


def _check_serve_port(serve: ServingRecipe) -> str:
    if serve_runs():
        return "Ray Serve runs already"
    head = head_node()
    [(_, error)] = on_nodes([head], cannot_listen, serve.host, serve.port)
    if error:
        raise UserError(
            f"serve.port: {serve.host}:{serve.port} is not free on {node_name(head)} ({error});"
            " give another port"
        )
    return f"{serve.host}:{serve.port} is free on {node_name(head)}"
