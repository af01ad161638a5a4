"""The rationales stage: ask the teacher each question that is not finished, and sum up.

    questions ─▶ requests, in shards ─▶ pending blocks ─BlockAnswerer actors─▶ rows/

A shard is some ten thousand questions. Shards are prepared and settled one by one in Ray tasks, and
a Ray Data job asks the pending blocks of all of them. What the driver holds grows with the number
of blocks and shards, not of questions.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import ray
from ray.actor import ActorProxy
from ray.data import ActorPoolStrategy
from ray.exceptions import GetTimeoutError

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import Bundle, check_feasible, colocate, wait_for_resources
from qcrd_ray.cluster.tasks import map_tasks
from qcrd_ray.data.overlap import key_of, keys_among
from qcrd_ray.data.records import Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.blocks import (
    DRAIN_S,
    BlockAnswerer,
    ProgressCounter,
    Signal,
    drain,
    start_counter,
)
from qcrd_ray.rationales.manifest import write_manifest
from qcrd_ray.rationales.requests import (
    Part,
    parts_of,
    shard_count,
    write_requests,
)
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.rationales.verdict import (
    check_failed_share,
    check_not_stopped,
    check_unchanged,
    check_usable,
    failed_too_often,
)
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.live_metrics import RationaleMetrics
from qcrd_ray.runs.manifests import AskedCounts, Overlap, RationaleManifest
from qcrd_ray.runs.periodic import periodically
from qcrd_ray.runs.progress import Report, no_progress
from qcrd_ray.tasks.questions import iter_questions, load_split, write_split
from qcrd_ray.teacher import Deployable, Stopped, Teacher, teacher_for, trouble
from qcrd_ray.teacher import bundles as teacher_bundles

POLL_S = 0.5
COUNTER_S = 2.0  # within which the counter answers, or is not waited for
FILES_CPUS = 0.25  # reading and writing files of text is light work
MAX_BLOCKS = 4_096  # of one job: Ray Data and the file system handle each by itself
DEMANDS = "the teacher and those who ask it (teacher.*, generation.actors)"
JUDGED_ROWS = 50  # before as many have come back, no share of failures is judged


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
    only; with nothing to ask the teacher is not even started. Once a training on them has begun,
    nothing is asked any more. Ray must be connected.

    Args:
        teacher: one to share between calls; None starts and stops the recipe's own.

    Raises:
        UserError: the questions cannot be read; the teacher cannot be started, stopped before it
            had been asked everything, failed on too many questions, or gave no usable answer to
            any.
        MissingResource: the cluster cannot hold the teacher and those who ask it side by side.
    """
    if teacher is None:
        with teacher_for(recipe) as recipe_teacher:
            return generate(recipe, folder, split, report=report, teacher=recipe_teacher)
    store = RationaleStore(folder.rationales(split))
    begun = folder.training_begun() if split == "train" else None
    if begun is None and store.shards is None:  # nothing was asked before, so all of it will be
        _deploy(recipe, teacher, report)  # it starts while the questions are read
    report(0, 0, "reading the questions")
    read = write_split(recipe, folder, split)
    questions = folder.questions(split)
    teacher.check(iter_questions(questions))
    shards = store.shards or shard_count(read.questions)
    store.begin(shards)
    parts = partial(
        write_requests,
        questions=questions,
        folder=store.requests,
        shards=shards,
        recipe=recipe,
        teacher=teacher,
        identity=teacher.identity(),
    )
    for _ in map_tasks(parts, parts_of(questions), **_file_options(recipe.generation)):
        pass
    block_rows = max(recipe.generation.rows_per_block, read.questions // MAX_BLOCKS)

    def settle(*, ask_failed: bool) -> dict[int, ShardCounts]:
        one = partial(store.settle, shards=shards, ask_failed=ask_failed, block_rows=block_rows)
        return dict(map_tasks(one, range(shards), **_file_options(recipe.generation)))

    before = settle(ask_failed=begun is None)
    asked = None
    if begun is not None:
        check_unchanged(_sum(before), begun)
    elif blocks := _blocks(before, block_rows):
        _deploy(recipe, teacher, report)
        calls = _calls_at_once(recipe.generation, block_rows)
        asked = _ask_blocks(
            recipe, teacher, store, blocks, calls=calls, counts=_sum(before), report=report
        )
    counts = _sum(settle(ask_failed=False)) if asked else _sum(before)
    manifest = write_manifest(
        recipe,
        store,
        counts,
        split=split,
        rejected=read.rejected,
        overlap=_overlap(recipe, folder) if split == "train" else {},
        asked=asked,
    )
    report(read.questions, read.questions, _outcomes_text(Counter(manifest.outcomes)))
    if begun is None:
        check_not_stopped(counts, manifest)
        check_usable(recipe, counts, manifest)
        check_failed_share(recipe, counts)
    return manifest


def _deploy(recipe: Recipe, teacher: Teacher, report: Report) -> None:
    """Have the teacher start, where that takes long and goes on by itself.

    Raises:
        MissingResource: the cluster cannot hold it beside those who ask.
    """
    check_feasible(bundles(recipe), what=DEMANDS)  # a started teacher would hold their share
    if isinstance(teacher, Deployable):
        teacher.deploy(report)


def bundles(recipe: Recipe) -> list[Bundle]:
    """The resources that the stage takes side by side: the teacher, and those who ask it."""
    return [*teacher_bundles(recipe.teacher), *_asking_bundles(recipe.generation)]


def _asking_bundles(generation: GenerationRecipe) -> list[Bundle]:
    """Those of the actors that ask, and one CPU near them for small tasks on files."""
    actor = generation.actor
    return [*[actor.bundle] * generation.actors, {"CPU": 1.0, **colocate(actor.resources)}]


def _file_options(generation: GenerationRecipe) -> dict[str, object]:
    return {"num_cpus": FILES_CPUS, "resources": colocate(generation.actor.resources)}


def _blocks(shards: dict[int, ShardCounts], block_rows: int) -> list[dict[str, int]]:
    """The blocks of pending requests, by shard."""
    return [
        {"shard": shard, "block": block}
        for shard in sorted(shards)
        for block in range(-(-shards[shard].pending // block_rows))
    ]


def _calls_at_once(settings: GenerationRecipe, block_rows: int) -> int:
    """How many blocks an actor answers at once: one more than fills the requests in flight.

    So they stay in flight while a block's last ones are awaited.
    """
    in_flight = settings.requests_in_flight * settings.questions_per_request
    return -(-in_flight // block_rows) + 1


def _sum(shards: dict[int, ShardCounts]) -> ShardCounts:
    counts = ShardCounts()
    for shard in sorted(shards):
        counts += shards[shard]
    return counts


def _overlap(recipe: Recipe, folder: RunFolder) -> dict[str, Overlap]:
    """The questions of each measured split that are among the training questions."""
    measured = {
        name: [(question.id, key_of(question)) for question in load_split(recipe, name)[0]]
        for name in ("validation", "test", "held_out")
        if getattr(recipe.data, name) is not None
    }
    training = folder.questions("train")
    find = partial(
        _keys_in, file=training, keys={key for each in measured.values() for _, key in each}
    )
    found: set[str] = set()
    for _, keys in map_tasks(find, parts_of(training), **_file_options(recipe.generation)):
        found |= keys
    shared = {name: [id for id, key in each if key in found] for name, each in measured.items()}
    return {name: {"ids": ids, "of": len(measured[name])} for name, ids in shared.items() if ids}


def _keys_in(part: Part, *, file: Path, keys: set[str]) -> set[str]:
    return keys_among(keys, iter_questions(file, part.row_groups))


def _ask_blocks(
    recipe: Recipe,
    teacher: Teacher,
    store: RationaleStore,
    blocks: list[dict[str, int]],
    *,
    calls: int,
    counts: ShardCounts,
    report: Report,
) -> AskedCounts:
    """Run the Ray Data job over the blocks to be answered, ``calls`` at once an actor.

    Its actors start while the teacher does, and ask once that is ready.
    """
    settings = recipe.generation
    wanted = _asking_bundles(settings)
    report(0, 0, "asking waits for its resources")
    wait_for_resources(
        wanted,
        what="asking the teacher (generation.actors)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    counter = start_counter(colocate(settings.actor.resources))

    known: Counter[str] = Counter()
    signal = Signal.WAIT
    start = first = 0.0

    def done_so_far() -> Counter[str]:
        nonlocal known, first
        with suppress(GetTimeoutError):  # an actor that is not up yet must not hold up a stop
            known = ray.get(counter.exchange.remote(signal), timeout=COUNTER_S)
        if known["rows"] and not first:
            first = time.monotonic() - start
        return known

    goes_on = isinstance(teacher, Deployable)
    if not goes_on:  # it is quick, and those who ask are sent what it makes
        teacher.start(report)
    with data_context(cpus=sum(bundle.get("CPU", 0.0) for bundle in wanted)):
        job = Background(
            partial(_run_job, recipe, teacher, store, blocks, calls, counter, counts.finished)
        )
        try:
            if goes_on:
                teacher.start(report)
            signal, start = Signal.ASK, time.monotonic()
            show = _progress(
                recipe.name,
                teacher,
                done_so_far,
                report,
                total=counts.requests,
                finished=counts.finished,
            )
            with periodically(show, every_s=POLL_S):
                job.result()
        except KeyboardInterrupt:
            signal = Signal.DRAIN
            report(0, 0, "stopping when the requests in flight are answered")
            drain(done_so_far)  # they are paid for
            raise
        except UserError:  # of the teacher's start, or the job's own
            signal = Signal.DRAIN
            done_so_far()
            job.wait(DRAIN_S)  # nobody asks any more, and its blocks end at once
            raise
    seconds = time.monotonic() - start
    done = ray.get(counter.exchange.remote(signal))
    # Ray Data's pickled copy of the handle keeps it until the driver ends
    ray.kill(counter)  # pyright: ignore[reportArgumentType]  # the stub wants no proxy
    return {
        "asked": counts.pending,
        "retries": done["retries"],
        "seconds": round(seconds, 3),
        "first_s": round(first or seconds, 3),
        "tokens_in": done["tokens_in"],
        "tokens_out": done["tokens_out"],
        "tokens_per_s": round(done["tokens_out"] / seconds, 1),
    }


def _run_job(
    recipe: Recipe,
    teacher: Teacher,
    store: RationaleStore,
    blocks: list[dict[str, int]],
    calls: int,
    counter: ActorProxy[ProgressCounter],
    finished: int,
) -> None:
    """Have the actors answer ``blocks``; each writes its rows itself.

    Raises:
        UserError: of these questions and the ``finished`` ones, more than
            `generation.max_failed_share` have failed.
    """
    settings = recipe.generation
    answered = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        BlockAnswerer,
        fn_constructor_args=(recipe, teacher, store, counter, uuid.uuid4().hex[:8]),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=settings.actors,
            max_concurrent_calls_per_actor=calls,
            max_tasks_in_flight_per_actor=calls + 1,
        ),
        **settings.actor.options,
    )
    rows = failed = 0
    reasons: Counter[str] = Counter()
    for block in answered.iter_rows():
        rows += block["rows"]
        failed += block["failed"]
        reasons.update([block["reason"]] if block["failed"] else [])
        if rows >= JUDGED_ROWS and failed > settings.max_failed_share * (finished + rows):
            raise failed_too_often(settings, failed, finished + rows, reasons.most_common(1)[0][0])


class Background:
    """``work`` in another thread: Ctrl-C ends Ray Data's job where it iterates over it."""

    def __init__(self, work: Callable[[], None]):
        self._failure: BaseException | None = None

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._failure = error

        self._thread = threading.Thread(target=run, name="rationales", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait for its end, so long at most."""
        self._thread.join(seconds)

    def result(self) -> None:
        """Wait for its end; raises what it raised."""
        while self._thread.is_alive():
            self._thread.join(POLL_S)
        if self._failure is not None:
            raise self._failure


def _progress(
    run: str,
    teacher: Teacher,
    counts: Callable[[], Counter[str]],
    report: Report,
    *,
    total: int,
    finished: int,
) -> Callable[[], None]:
    """A function that brings the progress line and Ray's metrics up to date."""
    metrics = RationaleMetrics(run)
    start = time.monotonic()

    def show() -> None:
        done = counts()
        metrics.update(done)
        speed = done["tokens_out"] / (time.monotonic() - start)
        notes = [_outcomes_text(done), f"{speed:,.0f} tokens/s" if speed else "", troubled()]
        # a block whose actor died is asked, and so counted, twice
        report(min(finished + done["rows"], total), total, ", ".join(filter(None, notes)))

    def troubled() -> str:
        try:
            return trouble(teacher).partition("\n")[0]
        except Stopped as stopped:  # the actors meet it too, and end the asking
            return str(stopped).partition("\n")[0]

    return show


def _outcomes_text(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[outcome.value]} {outcome.value.replace('_', ' ')}"
        for outcome in Outcome
        if counts[outcome.value]
    )
