"""The memory check: each stage's estimate against the nodes and GPUs that it would run on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from transformers import PretrainedConfig

from qcrd_ray.cluster import resources as cluster
from qcrd_ray.cluster.nodes import live_nodes, node_name, on_nodes
from qcrd_ray.doctor.memory import (
    Estimate,
    generation_estimate,
    teacher_estimate,
    training_estimate,
)
from qcrd_ray.errors import UserError
from qcrd_ray.models import pretrained
from qcrd_ray.recipe import Recipe, ServeTeacher
from qcrd_ray.training.job import objectives_of, uses_discriminator

GIB = 1 << 30
STORE_BYTES = 256 << 20  # two of the blocks that Ray Data works in
# CUDA's context and libraries, and what an allocator cannot use of the rest
CONTEXT_BYTES, USABLE = 0.7 * GIB, 0.93
# What a card shows of its memory, in GiB, by Ray's name of its type; the smaller of two kinds.
CARDS = {
    "T4": 15.0,
    "V100": 15.8,
    "A10G": 22.0,
    "L4": 22.0,
    "L40S": 44.5,
    "A100": 39.4,
    "A100-40G": 39.4,
    "A100-80G": 79.2,
    "H100": 79.2,
    "H200": 139.8,
    "B200": 178.0,
}
_TYPE = "accelerator_type:"


class Process(NamedTuple):
    """A kind of process: the recipe's name of it, what one takes of a node, and its estimate."""

    name: str
    bundle: Mapping[str, float]
    estimate: Estimate


def check_memory(recipe: Recipe) -> str:
    """The object stores hold Ray Data's blocks, and the processes fit their nodes or GPUs.

    Raises:
        UserError: an object store is too small, or a GPU for what would run on it with texts of any
            length.
        MissingResource: training on CPUs needs more memory than the nodes have, at the least.
    """
    for node in live_nodes():
        if (store := node["Resources"].get("object_store_memory", 0.0)) < STORE_BYTES:
            raise UserError(
                f"memory: the object store of {node_name(node)} has {store / GIB:.2f} GiB, and Ray"
                f" Data needs {STORE_BYTES / GIB:.2f}; give it more with `ray start"
                " --object-store-memory` (and a container's /dev/shm as much)"
            )
    lines, problems = [], []
    for process in processes(recipe):
        gpus = process.bundle.get("GPU", 0.0)
        lines.append(describe(process))
        if gpus:
            gpu, share = smallest_gpu(process.bundle), min(gpus, 1.0)
            # texts may all be shorter than the longest that the recipe allows: no reason to refuse
            refused = too_small(process, gpu, share=share, certain=True)
            problems += refused
            lines += [] if refused else too_small(process, gpu, share=share)
        elif process.name == "train.worker":
            cluster.check_feasible(
                [{"memory": process.estimate.kept}] * recipe.train.workers,
                what=f"training ({process.estimate.change})",
            )
    if problems:
        raise UserError("\n".join(problems))
    return "\n".join(lines) or "the object stores are large enough, and the models need little"


def processes(recipe: Recipe) -> Iterator[Process]:
    """The recipe's processes that hold a model, with texts as long as they may be."""
    teacher, student = recipe.teacher, recipe.student
    if isinstance(teacher, ServeTeacher):
        from qcrd_ray.teacher.serve import replica_bundles

        bundle = replica_bundles(teacher)[0]
        if bundle.get("GPU"):
            yield Process(
                "teacher.replica",
                bundle,
                teacher_estimate(_config(teacher.model, teacher.trust_remote_code), teacher),
            )
    if student.model is None:  # a student.scratch is small
        return
    config = _config(student.model, student.trust_remote_code)
    objectives = objectives_of(recipe)
    yield Process("train.worker", recipe.train.worker.bundle, training(recipe, config))
    generators = [("evaluate.worker", recipe.evaluate.worker.bundle, "evaluate.batch_size")]
    batches = [recipe.evaluate.batch_size]
    if recipe.negatives.student and any(each.uses_negatives for each in objectives):
        generators.append(
            ("negatives.sampler", recipe.negatives.sampler.bundle, "negatives.batch_size")
        )
        batches.append(recipe.negatives.batch_size)
    if config.is_encoder_decoder:  # of a decoder-only student vLLM takes its share
        generators.append(("serve.replica", recipe.serve.replica.bundle, "serve.max_batch_size"))
        batches.append(recipe.serve.max_batch_size)
    for (name, bundle, key), batch in zip(generators, batches, strict=True):
        if bundle.get("GPU"):
            estimate = generation_estimate(
                config,
                batch=batch,
                input_tokens=student.max_input_tokens,
                output_tokens=student.max_target_tokens,
                change=key,
            )
            yield Process(name, bundle, estimate)


def training(recipe: Recipe, config: PretrainedConfig) -> Estimate:
    """One training worker of the largest of the recipe's trainings."""
    objectives = objectives_of(recipe)
    judge = None
    if any(uses_discriminator(recipe, objective) for objective in objectives):
        model = recipe.discriminator.model
        judge = _config(model, False) if model else config
    explains = any(objective.explains for objective in objectives)
    samples = recipe.sampling.k
    if recipe.negatives.student and any(each.uses_negatives for each in objectives):
        samples += recipe.negatives.per_question
    return training_estimate(
        config,
        judge,
        student=recipe.student,
        discriminator=recipe.discriminator,
        train=recipe.train,
        sampling=recipe.sampling,
        candidates=samples if explains else 0,
        reference=any(objective.needs_reference for objective in objectives),
    )


def describe(process: Process) -> str:
    """ "train.worker: 3.10 GiB (the student 1.20, the student's step 1.90)"."""
    parts = ", ".join(
        f"{name} {size / GIB:.2f}" for name, size in process.estimate.parts.items() if size
    )
    return f"{process.name}: {process.estimate.total / GIB:.2f} GiB at most ({parts})"


def too_small(
    process: Process, gpu: float | None, *, share: float, certain: bool = False
) -> list[str]:
    """What to tell where the process may not fit its ``share`` of a GPU of so many bytes.

    ``certain``: only where it cannot, however short the texts are. Nothing where it fits, or the
    GPU is not known (None).
    """
    if gpu is None:
        return []
    # vLLM's estimate is of a whole card, of which it takes its share itself
    room = gpu if process.name == "teacher.replica" else (gpu * USABLE - CONTEXT_BYTES) * share
    if (process.estimate.kept if certain else process.estimate.total) <= room:
        return []
    return [
        f"memory: {describe(process)}, and it has {room / GIB:.1f} GiB of a GPU"
        f" ({gpu / GIB:.1f} GiB): {process.estimate.change}"
    ]


def smallest_gpu(bundle: Mapping[str, float]) -> float | None:
    """Bytes of the smallest GPU, of those that are known, that ``bundle`` could be placed on.

    Live nodes are asked; of those that an autoscaler may start the cards' type is read.
    """
    fitting = [node for node in live_nodes() if _holds(node["Resources"], bundle)]
    known = [size for _, sizes in on_nodes(fitting, gpu_bytes) for size in sizes]
    known += [
        CARDS[name.removeprefix(_TYPE)] * GIB
        for worker in cluster.startable_workers()
        if _holds(worker, bundle)
        for name in worker
        if name.removeprefix(_TYPE) in CARDS
    ]
    return min(known, default=None)


def gpu_bytes() -> list[int]:
    """The memory of each GPU of this node; [] where NVIDIA's tool finds none."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) << 20 for line in told.stdout.split() if line.isdigit()]


def _holds(node: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    wanted = {name: n for name, n in bundle.items() if not name.startswith(_TYPE)}
    return all(node.get(name, 0.0) >= amount for name, amount in wanted.items())


def _config(model: str, trust_remote_code: bool) -> PretrainedConfig:
    return pretrained.read_config(model, trust_remote_code=trust_remote_code)
