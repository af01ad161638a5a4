"""The Ray Data job that asks the pending blocks of questions, seen from the driver.

Its actors start while the teacher does. What the driver holds grows with the number of blocks.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import ray
from ray.actor import ActorProxy
from ray.data import ActorPoolStrategy
from ray.exceptions import GetTimeoutError

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import Bundle, colocate, wait_for_resources
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
from qcrd_ray.rationales.store import RationaleStore, ShardCounts
from qcrd_ray.rationales.verdict import failed_too_often
from qcrd_ray.recipe import GenerationRecipe, Recipe
from qcrd_ray.runs.live_metrics import RationaleMetrics
from qcrd_ray.runs.manifests import AskedCounts
from qcrd_ray.runs.periodic import periodically
from qcrd_ray.runs.progress import Report
from qcrd_ray.teacher import Deployable, Stopped, Teacher, trouble

POLL_S = 0.5
COUNTER_S = 2.0  # within which the counter answers, or is not waited for
JUDGED_ROWS = 50  # before as many have come back, no share of failures is judged


def asking_bundles(generation: GenerationRecipe) -> list[Bundle]:
    """Those of the actors that ask, and one CPU near them for small tasks on files."""
    actor = generation.actor
    return [*[actor.bundle] * generation.actors, {"CPU": 1.0, **colocate(actor.resources)}]


def ask_blocks(
    recipe: Recipe,
    teacher: Teacher,
    store: RationaleStore,
    blocks: list[dict[str, int]],
    *,
    block_rows: int,
    counts: ShardCounts,
    report: Report,
) -> AskedCounts:
    """Have ``blocks`` of ``block_rows`` requests answered: each by its shard and number.

    A teacher that is Deployable has been deployed; the others are started here.

    Raises:
        UserError: the teacher cannot be started, or failed on too many questions.
        MissingResource: the cluster cannot hold those who ask beside the teacher.
    """
    settings = recipe.generation
    wanted = asking_bundles(settings)
    report(0, 0, "asking waits for its resources")
    wait_for_resources(
        wanted,
        what="asking the teacher (generation.actors)",
        timeout_s=recipe.ray.schedule_timeout_s,
    )
    calls = _calls_at_once(settings, block_rows)
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
        job = _Background(
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


def _calls_at_once(settings: GenerationRecipe, block_rows: int) -> int:
    """How many blocks an actor answers at once: one more than fills the requests in flight.

    So they stay in flight while a block's last ones are awaited.
    """
    in_flight = settings.requests_in_flight * settings.questions_per_request
    return -(-in_flight // block_rows) + 1


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


class _Background:
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
        notes = [outcomes_text(done), f"{speed:,.0f} tokens/s" if speed else "", troubled()]
        # a block whose actor died is asked, and so counted, twice
        report(min(finished + done["rows"], total), total, ", ".join(filter(None, notes)))

    def troubled() -> str:
        try:
            return trouble(teacher).partition("\n")[0]
        except Stopped as stopped:  # the actors meet it too, and end the asking
            return str(stopped).partition("\n")[0]

    return show


def outcomes_text(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[outcome.value]} {outcome.value.replace('_', ' ')}"
        for outcome in Outcome
        if counts[outcome.value]
    )
