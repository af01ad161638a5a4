"""The stage: questions are read, asked where they are not finished, and summed up.

    questions ──▶ asks.parquet ──read──▶ blocks ──Asker actors──▶ rationale sets ──write──▶
    rows/*.parquet

A plain Ray Data job with Ray Data's own row checkpoint, because that plan (read, maps, write) is
the one it can resume.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.data import ActorPoolStrategy
from ray.data.checkpoint import CheckpointConfig

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import Bundle, colocate, wait_for_resources
from qcrd_ray.data.overlap import same_questions
from qcrd_ray.data.records import Outcome, Question
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.asking import Asker, Tally
from qcrd_ray.rationales.store import Manifest, Store, ask_id, summarise
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.run.folder import RunFolder
from qcrd_ray.run.live_metrics import RationaleMetrics
from qcrd_ray.run.progress import Report, no_progress
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.questions import load_split, read_split
from qcrd_ray.teacher import Teacher, teacher_for

POLL_S = 0.5
FILES_CPUS = 0.25  # reading and writing blocks of text is light work


def generate_splits(
    recipe: Recipe, folder: RunFolder, splits: Sequence[str], *, report: Report = no_progress
) -> list[Manifest]:
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
) -> Manifest:
    """Ask the teacher every question of ``split`` that is not finished, and leave voted rationales
    in ``folder.rationales(split)``.

    Started again after whatever ended it, it asks for the missing and the failed rows only; with
    nothing to ask the teacher is not even started. ``teacher``: one to share between calls; none
    makes, starts and stops the recipe's own. Ray must be connected.

    Raises:
        UserError: the questions cannot be read, the teacher cannot be started, it stopped before it
            had been asked everything, or it answered nothing that can be used for any question.
    """
    if teacher is None:
        with teacher_for(recipe) as own:
            return generate(recipe, folder, split, report=report, teacher=own)
    questions, rejected = read_split(recipe, folder, split)
    teacher.check(questions)
    asks = _asks(recipe, teacher, questions)
    store = Store(folder.rationales(split))
    finished = store.open(asks)
    call = None
    if finished < len(asks):
        teacher.start(report)
        call = _ask_missing(
            recipe, teacher, store, total=len(asks), finished=finished, report=report
        )
    overlap = _overlap(recipe, questions) if split == "train" else {}
    manifest = summarise(
        recipe,
        store,
        split=split,
        rejected=len(rejected),
        asked=len(asks),
        overlap=overlap,
        call=call,
    )
    report(len(asks), len(asks), _note(Counter(manifest.outcomes)))
    _refuse_stopped(store, manifest)
    _refuse_useless(recipe, store, manifest)
    return manifest


def bundles(generation: GenerationRecipe) -> list[Bundle]:
    """What asking takes beside the teacher: the actors that ask, and one CPU near them for Ray
    Data's own small tasks.
    """
    actor = generation.actor
    return [*[actor.bundle] * generation.actors, {"CPU": 1.0, **colocate(actor.resources)}]


def _asks(recipe: Recipe, teacher: Teacher, questions: Sequence[Question]) -> dict[str, Question]:
    """The questions under their ids; see :func:`ask_id`."""
    task = build_task(recipe.task)
    asked = {
        "teacher": teacher.identity(),
        "sampling": {**recipe.sampling.model_dump(mode="json"), "seed": recipe.seed},
    }
    return {
        ask_id(question, teacher.prompt(task, question), **asked): question
        for question in questions
    }


def _overlap(recipe: Recipe, training: Sequence[Question]) -> dict[str, dict]:
    """Which questions of the splits that are measured on stand among those that are trained on."""
    measured = {
        name: load_split(recipe, name)[0]
        for name in ("validation", "test", "held_out")
        if getattr(recipe.data, name) is not None
    }
    found = {name: same_questions(questions, training) for name, questions in measured.items()}
    return {name: {"ids": ids, "of": len(measured[name])} for name, ids in found.items() if ids}


def _ask_missing(
    recipe: Recipe, teacher: Teacher, store: Store, *, total: int, finished: int, report: Report
) -> dict:
    """Run the Ray Data job over what the checkpoint does not hold; what it took, for the
    manifest.
    """
    settings = recipe.generation
    wait_for_resources(
        bundles(settings),
        what="asking the teacher (generation.actors)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    tally = Tally.options(resources=colocate(settings.actor.resources)).remote()
    start = time.monotonic()
    calls_at_once = (
        -(-settings.requests_in_flight * settings.questions_per_request // settings.rows_per_block)
        + 1
    )
    with (
        data_context(cpus=sum(bundle["CPU"] for bundle in bundles(settings))) as context,
        _reporting(recipe.name, tally, report, total=total, finished=finished),
    ):
        # its Parquet reader starts 32 actors to read the footer of one file
        context.use_datasource_v2 = False
        context.checkpoint_config = CheckpointConfig(
            "id", str(store.checkpoint), delete_checkpoint_on_success=False
        )
        files = {"num_cpus": FILES_CPUS, "resources": colocate(settings.actor.resources)}
        asks = ray.data.read_parquet(str(store.asks), **files)
        # Ray Data saves finished rows a block at a time, and without this it reads everything into
        # one block.
        blocks = asks.repartition(target_num_rows_per_block=settings.rows_per_block)
        rows = blocks.map_batches(
            Asker,
            fn_constructor_args=(recipe, teacher, lambda counts: tally.add.remote(counts)),
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
        # Each block is written as it is finished; more writers at once than blocks that finish at
        # once would only be more processes.
        rows.write_parquet(str(store.rows), ray_remote_args=files, concurrency=settings.actors + 1)
    return {
        "asked": total - finished,
        **_speed(ray.get(tally.read.remote()), seconds=time.monotonic() - start),
    }


@contextmanager
def _reporting(run: str, tally, report: Report, *, total: int, finished: int) -> Iterator[None]:
    """Report progress, and raise Ray's metrics, while the block runs.

    The job keeps the main thread, so that Ctrl-C reaches Ray Data, which then stops cleanly.
    """
    live = RationaleMetrics(run)
    over = threading.Event()

    def watch() -> None:
        start = time.monotonic()
        while not over.wait(POLL_S):
            counts = ray.get(tally.read.remote())
            live.tell(counts)
            speed = counts["tokens_out"] / (time.monotonic() - start)
            # A block whose actor died is asked, and so counted, twice.
            report(
                min(finished + counts["rows"], total),
                total,
                _note(counts) + (f", {speed:,.0f} tokens/s" if speed else ""),
            )

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    live.tell(ray.get(tally.read.remote()))


def _note(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[outcome.value]} {outcome.value.replace('_', ' ')}"
        for outcome in Outcome
        if counts[outcome.value]
    )


def _speed(counts: Counter[str], *, seconds: float) -> dict:
    return {
        "retries": counts["retries"],
        "seconds": round(seconds, 3),
        "tokens_in": counts["tokens_in"],
        "tokens_out": counts["tokens_out"],
        "tokens_per_s": round(counts["tokens_out"] / seconds, 1),
    }


def _refuse_stopped(store: Store, manifest: Manifest) -> None:
    """Going on would train on the questions that happened to come before the teacher stopped."""
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


def _refuse_useless(recipe: Recipe, store: Store, manifest: Manifest) -> None:
    """Nothing to train on is the user's to mend: show what came back and name the fields that could
    be wrong.
    """
    useful = (Outcome.ACCEPTED, Outcome.NO_CONSENSUS)
    if any(manifest.outcomes[outcome] for outcome in useful):
        return
    row = (
        next(store.tables(["question_id", "outcome", "reason", "completions"]))
        .slice(0, 1)
        .to_pylist()[0]
    )
    told = ", ".join(f"{count} {outcome}" for outcome, count in manifest.outcomes.items() if count)
    example = f"question {row['question_id']!r} ended as {row['outcome']}: {row['reason']}"
    if row["completions"]:
        example += f"\n  the teacher wrote: {row['completions'][0]['text'][:300]!r}"
    if row["outcome"] == Outcome.UNPARSED:
        mend = (
            "Change what the teacher is told with task.instruction and task.examples (task.kind is"
            f" {recipe.task.kind}), or give it more room with sampling.max_tokens (now"
            f" {recipe.sampling.max_tokens})."
        )
    else:
        mend = (
            "Look at the teacher.* section of the recipe; failed rows are asked again by the next"
            " run."
        )
    raise UserError(
        f"the teacher answered nothing that can be used for any question of {manifest.split}"
        f" ({told})\n  {example}\n{mend}"
    )
