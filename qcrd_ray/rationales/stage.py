"""The rationales stage: ask the teacher each question that is not finished, and sum up.

    questions ─▶ requests.parquet ─read─▶ blocks ─RationaleGenerator actors─▶ rationale sets
              ─write─▶ rows/*.parquet

It is a plain Ray Data job with Ray Data's own row checkpoint: a plan of read, maps and write is the
one that the checkpoint can resume.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import ray
from ray.data import ActorPoolStrategy
from ray.data.checkpoint import CheckpointConfig

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import Bundle, colocate, wait_for_resources
from qcrd_ray.data.overlap import same_questions
from qcrd_ray.data.records import Outcome, Question
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.asking import ProgressCounter, RationaleGenerator
from qcrd_ray.rationales.store import RationaleStore, request_id, summarise
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.live_metrics import RationaleMetrics
from qcrd_ray.run.manifests import AskedCounts, Overlap, RationaleManifest
from qcrd_ray.run.periodic import periodically
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import load_split, store_split
from qcrd_ray.teacher import Teacher, teacher_for

POLL_S = 0.5
FILES_CPUS = 0.25  # reading and writing blocks of text is light work


def generate_splits(
    recipe: Recipe, folder: RunFolder, splits: Sequence[str], *, report: Report = no_progress
) -> list[RationaleManifest]:
    """:func:`generate` for several splits with one start of the teacher."""
    with teacher_for(recipe) as teacher:
        return [generate(recipe, folder, split, report=report, teacher=teacher) for split in splits]


def generate(
    recipe: Recipe,
    folder: RunFolder,
    split: str = "train",
    *,
    report: Report = no_progress,
    teacher: Teacher | None = None,
) -> RationaleManifest:
    """Generate and vote on the rationales of ``split``, in ``folder.rationales(split)``.

    Called again, whatever ended the last call, it asks for the missing and the failed questions
    only; with nothing to ask the teacher is not even started. Ray must be connected.

    Args:
        teacher: one to share between calls; None starts and stops the recipe's own.

    Raises:
        UserError: the questions cannot be read; the teacher cannot be started, stopped before it
            had been asked everything, or gave no usable answer to any question.
    """
    if teacher is None:
        with teacher_for(recipe) as recipe_teacher:
            return generate(recipe, folder, split, report=report, teacher=recipe_teacher)
    questions, rejected = store_split(recipe, folder, split)
    teacher.check(questions)
    requests = _requests(recipe, teacher, questions)
    store = RationaleStore(folder.rationales(split))
    finished = store.open(requests)
    asked = None
    if finished < len(requests):
        teacher.start(report)
        asked = _ask_missing(
            recipe, teacher, store, total=len(requests), finished=finished, report=report
        )
    manifest = summarise(
        recipe,
        store,
        split=split,
        rejected=len(rejected),
        requests=len(requests),
        overlap=_overlap(recipe, questions) if split == "train" else {},
        asked=asked,
    )
    report(len(requests), len(requests), _outcomes_text(Counter(manifest.outcomes)))
    _check_not_stopped(store, manifest)
    _check_usable(recipe, store, manifest)
    return manifest


def bundles(generation: GenerationRecipe) -> list[Bundle]:
    """The resources that the stage takes beside the teacher.

    These are the actors that ask, and one CPU near them for Ray Data's own small tasks.
    """
    actor = generation.actor
    return [*[actor.bundle] * generation.actors, {"CPU": 1.0, **colocate(actor.resources)}]


def _requests(
    recipe: Recipe, teacher: Teacher, questions: Sequence[Question]
) -> dict[str, Question]:
    """The questions by the id of their request; see :func:`request_id`."""
    task = build_task(recipe.task)
    identity = teacher.identity()
    sampling = {**recipe.sampling.model_dump(mode="json"), "seed": recipe.seed}
    return {
        request_id(
            question, teacher.prompt(task, question), teacher=identity, sampling=sampling
        ): question
        for question in questions
    }


def _overlap(recipe: Recipe, training: Sequence[Question]) -> dict[str, Overlap]:
    """The questions of each measured split that are among the training questions."""
    measured = {
        name: load_split(recipe, name)[0]
        for name in ("validation", "test", "held_out")
        if getattr(recipe.data, name) is not None
    }
    shared = {name: same_questions(questions, training) for name, questions in measured.items()}
    return {name: {"ids": ids, "of": len(measured[name])} for name, ids in shared.items() if ids}


def _ask_missing(
    recipe: Recipe,
    teacher: Teacher,
    store: RationaleStore,
    *,
    total: int,
    finished: int,
    report: Report,
) -> AskedCounts:
    """Run the Ray Data job over the requests that the checkpoint does not hold."""
    settings = recipe.generation
    wanted = bundles(settings)
    wait_for_resources(
        wanted,
        what="asking the teacher (generation.actors)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    counter = ProgressCounter.options(resources=colocate(settings.actor.resources)).remote()

    def counts() -> Counter[str]:
        return ray.get(counter.read.remote())

    start = time.monotonic()
    show = _progress(recipe.name, counts, report, total=total, finished=finished)
    with (
        data_context(cpus=sum(bundle.get("CPU", 0.0) for bundle in wanted)) as context,
        periodically(show, every_s=POLL_S),
    ):
        # its Parquet reader starts 32 actors to read the footer of one file
        context.use_datasource_v2 = False
        context.checkpoint_config = CheckpointConfig(
            "id", str(store.checkpoint), delete_checkpoint_on_success=False
        )
        _run_job(recipe, teacher, store, lambda done: counter.add.remote(done))
    seconds = time.monotonic() - start
    done = counts()
    return {
        "asked": total - finished,
        "retries": done["retries"],
        "seconds": round(seconds, 3),
        "tokens_in": done["tokens_in"],
        "tokens_out": done["tokens_out"],
        "tokens_per_s": round(done["tokens_out"] / seconds, 1),
    }


def _run_job(
    recipe: Recipe,
    teacher: Teacher,
    store: RationaleStore,
    send_counts: Callable[[Counter[str]], object],
) -> None:
    """Read requests.parquet, turn blocks of it into rationale sets, write rows/."""
    settings = recipe.generation
    calls_at_once = (
        -(-settings.requests_in_flight * settings.questions_per_request // settings.rows_per_block)
        + 1
    )
    files = {"num_cpus": FILES_CPUS, "resources": colocate(settings.actor.resources)}
    requests = ray.data.read_parquet(str(store.requests), **files)
    # Ray Data saves finished rows a block at a time, and without this it reads everything into one
    # block.
    blocks = requests.repartition(target_num_rows_per_block=settings.rows_per_block)
    rows = blocks.map_batches(
        RationaleGenerator,
        fn_constructor_args=(recipe, teacher, send_counts),
        batch_size=settings.rows_per_block,
        batch_format="pyarrow",
        # One block more than fills the requests in flight, so that they stay in flight while a
        # block's last ones are awaited.
        compute=ActorPoolStrategy(
            size=settings.actors,
            max_concurrent_calls_per_actor=calls_at_once,
            max_tasks_in_flight_per_actor=calls_at_once + 1,
        ),
        **settings.actor.options,
    )
    # Each block is written as it is finished; more writers at once than blocks that finish at once
    # would only be more processes.
    rows.write_parquet(str(store.rows), ray_remote_args=files, concurrency=settings.actors + 1)


def _progress(
    run: str, counts: Callable[[], Counter[str]], report: Report, *, total: int, finished: int
) -> Callable[[], None]:
    """A function that brings the progress line and Ray's metrics up to date."""
    metrics = RationaleMetrics(run)
    start = time.monotonic()

    def show() -> None:
        done = counts()
        metrics.update(done)
        speed = done["tokens_out"] / (time.monotonic() - start)
        # a block whose actor died is asked, and so counted, twice
        report(
            min(finished + done["rows"], total),
            total,
            _outcomes_text(done) + (f", {speed:,.0f} tokens/s" if speed else ""),
        )

    return show


def _outcomes_text(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[outcome.value]} {outcome.value.replace('_', ' ')}"
        for outcome in Outcome
        if counts[outcome.value]
    )


def _check_not_stopped(store: RationaleStore, manifest: RationaleManifest) -> None:
    """Raise UserError if the teacher stopped early.

    Going on would train on the questions that happened to come before it stopped.
    """
    columns = ["outcome", "attempts", "reason"]
    rows = (row for table in store.tables(columns) for row in table.to_pylist())
    reasons = Counter(
        row["reason"] for row in rows if row["outcome"] == Outcome.FAILED and row["attempts"] == 0
    )
    if reasons:
        raise UserError(
            f"the teacher stopped before {reasons.total()} of the {manifest.rows} questions of"
            f" {manifest.split}: {reasons.most_common(1)[0][0]}\nWhat it answered lies in the run"
            " folder; the next run asks the missing questions only."
        )


def _check_usable(recipe: Recipe, store: RationaleStore, manifest: RationaleManifest) -> None:
    """Raise UserError if no question has a usable answer.

    The error shows an answer that came back and names the fields that could be wrong.
    """
    usable = (Outcome.ACCEPTED, Outcome.NO_CONSENSUS)
    if any(manifest.outcomes[outcome] for outcome in usable):
        return
    row = (
        next(store.tables(["question_id", "outcome", "reason", "completions"]))
        .slice(0, 1)
        .to_pylist()[0]
    )
    outcomes = ", ".join(f"{count} {name}" for name, count in manifest.outcomes.items() if count)
    example = f"question {row['question_id']!r} ended as {row['outcome']}: {row['reason']}"
    if row["completions"]:
        example += f"\n  the teacher wrote: {row['completions'][0]['text'][:300]!r}"
    if row["outcome"] == Outcome.UNPARSED:
        advice = (
            "Change what the teacher is asked with task.instruction and task.examples (task.kind is"
            f" {recipe.task.kind}), or give it more room with sampling.max_tokens (now"
            f" {recipe.sampling.max_tokens})."
        )
    else:
        advice = (
            "Look at the teacher.* section of the recipe; failed rows are asked again by the next"
            " run."
        )
    raise UserError(
        f"the teacher answered nothing that can be used for any question of {manifest.split}"
        f" ({outcomes})\n  {example}\n{advice}"
    )
