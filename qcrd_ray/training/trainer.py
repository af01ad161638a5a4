"""The training stage on the driver: check, prepare, run Ray Train, write the result."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import ray
import ray.train
import transformers
from ray.train.torch import TorchTrainer

from qcrd_ray.cluster.ray_internals import TRAIN_CHECKPOINT_LIST, poll_train_workers
from qcrd_ray.cluster.resources import wait_for_resources
from qcrd_ray.errors import UserError
from qcrd_ray.inference.select import choose_engine
from qcrd_ray.method.objectives import OBJECTIVES
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.disk import full_disk
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.live_metrics import TrainingMetrics
from qcrd_ray.runs.manifests import truncation_note
from qcrd_ray.runs.periodic import periodically
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.runs.results import TrainingResult
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.splits import store_split
from qcrd_ray.training import OnRounds, ignore
from qcrd_ray.training.checkpoints import CHECKPOINTS, CHECKPOINTS_KEPT, snapshots_kept
from qcrd_ray.training.dataset import TrainingSet, read_validation, rounds_of
from qcrd_ray.training.job import ObjectiveName, TrainingJob, bundles, uses_discriminator
from qcrd_ray.training.learnable import check_learnable
from qcrd_ray.training.metrics import PROGRESS, read_metrics, read_progress
from qcrd_ray.training.prepare import Rationales, prepare, rationale_rows
from qcrd_ray.training.start_models import (
    check_start,
    write_discriminator_start,
    write_start,
)
from qcrd_ray.training.student_negatives import NegativeSampler, start_samplers
from qcrd_ray.training.synthetic_negatives import check_rows, check_sources
from qcrd_ray.training.targets import target_texts

log = logging.getLogger(__name__)

RESULT = "result.json"
_REPORT_EVERY_S = 0.5


def train(
    recipe: Recipe,
    folder: RunFolder,
    *,
    objective: ObjectiveName,
    report: Report = no_progress,
    on_rounds: OnRounds = ignore,
) -> TrainingResult:
    """Train the recipe's student on the run folder's rationales.

    Returns the content of train/<objective>/result.json. A finished training returns it at once, an
    interrupted one continues from its last round. The best student by validation is written to
    train/<objective>/best, a plain Hugging Face folder, with its discriminator in
    best/discriminator. Ray must be connected.

    ``report`` gets the number of the student's optimizer steps that are done, their total, and a
    note. The note moves too: the discriminator's pretraining comes before the first step.
    ``on_rounds`` is called from another thread with all rows of metrics.jsonl whenever there are
    more, and once at the end.

    Raises:
        UserError: the student, the data or the recipe's numbers cannot be trained with. Nothing has
            been started then.
        MissingResource: the cluster cannot hold workers and samplers side by side.
        ray.train.WorkerGroupError: workers failed more often than train.max_failures.
    """
    home = folder.training(objective)
    if (home / RESULT).exists():
        on_rounds(read_metrics(home))
        return json.loads((home / RESULT).read_text())
    return run_job(prepare_job(recipe, folder, objective), report=report, on_rounds=on_rounds)


def run_job(
    job: TrainingJob, *, report: Report = no_progress, on_rounds: OnRounds = ignore
) -> TrainingResult:
    """Run a prepared training to its end; see :func:`train`."""
    recipe, objective = job.recipe, job.objective_name
    wait_for_resources(
        bundles(recipe, [OBJECTIVES[objective]]),
        what=f"training (train.workers, negatives.samplers) of {objective}",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    total = rounds_of(recipe, job.manifest["questions"]).total_steps
    with _running_samplers(job), _reported(job, total, report, on_rounds):
        _fit(job)
    summary = summarise(job)
    write_text(job.folder / RESULT, json.dumps(summary, indent=2) + "\n")
    # optimizer shards serve resuming alone, and there is nothing left to resume
    shutil.rmtree(job.folder / CHECKPOINTS)
    return summary


# What the start and the training set depend on besides the rationales: recipes that agree in these
# keys can share one folder.
PREPARED_BY = (
    "task",
    "student",
    "discriminator.model",
    "objective.labels",
    "objective.positives",
    "negatives.teacher",
    "judge.samples",
    "judge.share",
    "judge.labels",
    "seed",
)


def prepare_job(
    recipe: Recipe,
    folder: RunFolder,
    objective: ObjectiveName,
    *,
    home: Path | None = None,
    rationales: pa.Table | None = None,
) -> TrainingJob:
    """Check all that can be checked before anything is started, and write what training reads.

    The start and the training set are written to ``home`` (None: train/). ``rationales`` are
    those to train on (None: all of the run folder's).

    Raises:
        UserError: see :func:`train`.
    """
    transformers.utils.logging.disable_progress_bar()  # one progress line: ours
    check_start(recipe.student, recipe.discriminator)
    snapshots_kept(recipe)
    task = build_task(recipe.task)
    validation = folder.questions("validation")
    store_split(recipe, folder, "validation")
    if not read_validation(validation, task, limit=1):
        raise UserError(
            f"no validation question in {validation} has an answer: the best checkpoint could not"
            " be chosen"
        )
    parts: list[Rationales]
    parts = [*folder.rationale_files("train")] if rationales is None else [rationales]
    home = home or folder.root / "train"
    home.mkdir(parents=True, exist_ok=True)
    tokenizer = write_start(
        recipe.student,
        home / "start",
        texts=target_texts(rationale_rows(parts), task),
        seed=recipe.seed,
    )
    if recipe.discriminator.model and uses_discriminator(recipe, OBJECTIVES[objective]):
        write_discriminator_start(recipe.discriminator.model, home / "discriminator")
    manifest = prepare(recipe, parts, home / "data", task=task, tokenizer=tokenizer)
    if note := truncation_note(manifest, recipe.student):
        log.warning("%s", note)
    rounds = rounds_of(recipe, manifest["questions"])
    if (read := rounds.total_steps * recipe.train.batch_size) < manifest["questions"]:
        log.warning(
            "%d rounds of %s steps read %s of the %s questions (train.rounds, train.round)",
            rounds.count,
            f"{rounds.steps_per_round:,}",
            f"{read:,}",
            f"{manifest['questions']:,}",
        )
    check_learnable(recipe, objective, manifest, parts)
    if OBJECTIVES[objective].uses_negatives:
        if (
            uses_discriminator(recipe, OBJECTIVES[objective])
            and recipe.discriminator.replay
            and not recipe.negatives.student
        ):
            raise UserError(
                "discriminator.replay: negatives.student is off, so there are no older student"
                " samples to replay; set it to 0"
            )
        if recipe.negatives.student:
            choose_engine(
                home / "start",
                recipe.negatives.engine,
                trust_remote_code=recipe.student.trust_remote_code,
                key="negatives.engine",
            )
        check_sources(recipe)
        check_rows(recipe, task, tokenizer, TrainingSet(home / "data").rows)
    return TrainingJob(
        recipe=recipe,
        objective_name=objective,
        home=home,
        folder=home / objective,
        validation=validation,
        manifest=manifest,
    )


def summarise(job: TrainingJob) -> TrainingResult:
    """The result of a finished training, from the rows of its rounds."""
    rows = read_metrics(job.folder)
    validated = [(row["round"], row["validation"]) for row in rows if "validation" in row]
    # the first of equals, as the workers keep it
    best_round, best = max(validated, key=lambda pair: pair[1][job.choose_by])
    seconds: dict[str, float] = {}
    for row in rows:
        for part, value in row["seconds"].items():
            seconds[part] = round(seconds.get(part, 0.0) + value, 3)
    return {
        "objective": job.objective_name,
        "best_round": best_round,
        "chosen_by": job.choose_by,
        "validation": best,
        "last_validation": validated[-1][1],
        "rounds": len(rows),
        "steps": rows[-1]["step"],
        "questions_seen": rows[-1]["step"] * job.recipe.train.batch_size,
        "data": {name: value for name, value in job.manifest.items() if name != "source"},
        "negatives": {
            name: value
            for name, value in rows[-1].get("negatives", {}).items()
            if name.startswith("from_")
        },
        "discriminator": {
            name: value
            for name, value in rows[best_round].get("discriminator", {}).items()
            if "fresh" in name
        },
        "seconds": seconds,
    }


def _fit(job: TrainingJob) -> None:
    train_recipe = job.recipe.train
    poll_train_workers(every_s=0.5)
    _delete_torn_checkpoint_list(job)
    gpus = train_recipe.worker.gpus > 0
    environment = {
        "OMP_NUM_THREADS": str(train_recipe.worker.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }

    def work() -> None:
        from qcrd_ray.training.worker import train_worker

        train_worker(job)

    trainer = TorchTrainer(
        work,
        scaling_config=ray.train.ScalingConfig(
            num_workers=train_recipe.workers,
            use_gpu=gpus,
            resources_per_worker=job.recipe.train.worker.bundle,
        ),
        run_config=ray.train.RunConfig(
            name=CHECKPOINTS,
            storage_path=str(job.folder),
            failure_config=ray.train.FailureConfig(max_failures=train_recipe.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            worker_runtime_env={
                "env_vars": environment if gpus else environment | {"DS_ACCELERATOR": "cpu"}
            },
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        with _interruptible():
            trainer.fit()
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if mistake := _user_error(failure):
                raise mistake from error
            if said := full_disk(failure):  # Ray's error does not lead to its workers' own
                raise OSError(errno.ENOSPC, said) from error
        raise


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Ctrl-C into a KeyboardInterrupt, as everywhere else.

    Ray Train answers it with an exit code of 0, and would go on doing so after training.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        raise KeyboardInterrupt from end
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _delete_torn_checkpoint_list(job: TrainingJob) -> None:
    """Delete a list of checkpoints that a kill cut short, which Ray Train could never read.

    Ray Train writes the list in place. The workers find the checkpoints by their folders.
    """
    path = job.folder / CHECKPOINTS / TRAIN_CHECKPOINT_LIST
    if path.exists():
        try:
            json.loads(path.read_text())
        except json.JSONDecodeError:
            log.warning("%s was cut short by a kill and is written anew", path)
            path.unlink()


def _user_error(failure: BaseException | None) -> UserError | None:
    """The UserError that a worker's failure comes from; None: it comes from another error."""
    while failure is not None:
        if isinstance(failure, UserError):
            return UserError(str(failure.args[0]))
        failure = getattr(failure, "cause", None) or failure.__cause__
    return None


@contextmanager
def _running_samplers(job: TrainingJob) -> Iterator[None]:
    actors = []
    if job.samples_negatives:
        actors = start_samplers(
            NegativeSampler(recipe=job.recipe, folder=job.folder, data=job.data)
        )
    try:
        yield
    finally:
        for actor in actors:
            ray.kill(actor)


@contextmanager
def _reported(job: TrainingJob, total: int, report: Report, on_rounds: OnRounds) -> Iterator[None]:
    """Report progress and rounds, from the files that rank 0 writes, while Ray Train works."""
    (job.folder / PROGRESS).unlink(missing_ok=True)
    live = TrainingMetrics(job.recipe.name, job.objective_name)
    rounds = 0

    def update() -> None:
        nonlocal rounds
        progress, rows = read_progress(job.folder), read_metrics(job.folder)
        accuracies = [row["validation"][job.choose_by] for row in rows if "validation" in row]
        accuracy = f", validation {accuracies[-1]:.1%}" if accuracies else ""
        report(progress["step"], total, progress["note"] + accuracy)
        live.step(progress["step"])
        # there are fewer after a restart of the workers, which begin at their last checkpoint
        if len(rows) != rounds:
            rounds = len(rows)
            if rows:
                live.round(rows[-1])
            on_rounds(rows)

    # the call at the end sees the last rounds, also of a training that ends in an error
    with periodically(update, every_s=_REPORT_EVERY_S):
        yield
    report(total, total, "done")
