"""The Ray Data job that asks the pending blocks of questions, seen from the driver.

Its actors start while the teacher does. What the driver holds grows with the number of blocks.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import ray
from ray.actor import ActorProxy
from ray.data import ActorPoolStrategy
from ray.exceptions import GetTimeoutError

from qcrd_ray.cluster.data_context import data_context
from qcrd_ray.cluster.resources import Bundle, colocate, wait_for_resources
from qcrd_ray.data.records import Outcome
from qcrd_ray.errors import UserError
from qcrd_ray.rationales.asking import Counts
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


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What a split has to ask: blocks of ``block_rows`` requests, each by its shard and number.

    ``counts`` are those of all its shards.
    """

    split: str
    store: RationaleStore
    counts: ShardCounts
    block_rows: int
    blocks: list[dict[str, int]]


def ask_blocks(
    recipe: Recipe, teacher: Teacher, splits: Sequence[Pending], *, report: Report
) -> dict[str, AskedCounts]:
    """Have the blocks of ``splits`` answered, one split after the other in a single job.

    A teacher that is Deployable has been deployed; the others are started here.

    Raises:
        UserError: the teacher cannot be started, or failed on too many questions of a split.
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
    counter = start_counter(colocate(settings.actor.resources))
    known: Counts = {}
    signal = Signal.WAIT
    clock = _Clock([pending.split for pending in splits])

    def done_so_far() -> Counts:
        nonlocal known
        with suppress(GetTimeoutError):  # an actor that is not up yet must not hold up a stop
            known = ray.get(counter.exchange.remote(signal), timeout=COUNTER_S)
        clock.see(known)
        return known

    goes_on = isinstance(teacher, Deployable)
    if not goes_on:  # it is quick, and those who ask are sent what it makes
        teacher.start(report)
    with data_context(cpus=sum(bundle.get("CPU", 0.0) for bundle in wanted)):
        job = _Background(partial(_run_job, recipe, teacher, splits, counter))
        try:
            if goes_on:
                teacher.start(report)
            signal = Signal.ASK
            clock.start()
            show = _progress(
                recipe.name,
                teacher,
                done_so_far,
                report,
                total=sum(pending.counts.requests for pending in splits),
                finished=sum(pending.counts.finished for pending in splits),
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
    clock.stop()
    done = ray.get(counter.exchange.remote(signal))
    # Ray Data's pickled copy of the handle keeps it until the driver ends
    ray.kill(counter)  # pyright: ignore[reportArgumentType]  # the stub wants no proxy
    return {
        pending.split: _asked(done.get(pending.split, Counter()), pending, *seconds)
        for pending, seconds in zip(splits, clock.seconds(), strict=True)
    }


def _asked(done: Counter[str], pending: Pending, seconds: float, first_s: float) -> AskedCounts:
    return {
        "asked": pending.counts.pending,
        "retries": done["retries"],
        "seconds": round(seconds, 3),
        "first_s": round(first_s, 3),
        "tokens_in": done["tokens_in"],
        "tokens_out": done["tokens_out"],
        "tokens_per_s": round(done["tokens_out"] / seconds, 1) if seconds else 0.0,
    }


class _Clock:
    """The seconds of each split, from the rows that are there at each look.

    A split's time begins where the one before it had its last row, so that all add up to the job's.
    """

    def __init__(self, splits: Sequence[str]):
        self._start = self._stop = time.monotonic()
        self._rows = dict.fromkeys(splits, 0)
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def start(self) -> None:
        """The teacher can be asked from now on."""
        self._start = time.monotonic()

    def see(self, counts: Counts) -> None:
        """Look at the rows that are there now."""
        now = time.monotonic()
        for split, before in self._rows.items():
            rows = counts.get(split, Counter())["rows"]
            if rows > before:
                self._rows[split] = rows
                self._first.setdefault(split, now)
                self._last[split] = now

    def stop(self) -> None:
        """Everything has been asked."""
        self._stop = time.monotonic()

    def seconds(self) -> Iterator[tuple[float, float]]:
        """Of each split: its seconds, and those before its first row."""
        begin, final = self._start, list(self._rows)[-1]
        for split in self._rows:
            end = self._stop if split == final else max(self._last.get(split, begin), begin)
            first = min(max(self._first.get(split, end), begin), end)
            yield end - begin, first - begin
            begin = end


def _calls_at_once(settings: GenerationRecipe, block_rows: int) -> int:
    """How many blocks an actor answers at once: one more than fills the requests in flight.

    So they stay in flight while a block's last ones are awaited.
    """
    in_flight = settings.requests_in_flight * settings.questions_per_request
    return -(-in_flight // block_rows) + 1


def _run_job(
    recipe: Recipe,
    teacher: Teacher,
    splits: Sequence[Pending],
    counter: ActorProxy[ProgressCounter],
) -> None:
    """Have the actors answer the blocks of ``splits``; each writes its rows itself.

    Raises:
        UserError: of the questions of a split that have ended, before or now, more than
            `generation.max_failed_share` have failed.
    """
    settings = recipe.generation
    calls = _calls_at_once(settings, min(pending.block_rows for pending in splits))
    blocks = [{"split": pending.split, **block} for pending in splits for block in pending.blocks]
    stores = {pending.split: pending.store for pending in splits}
    answered = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map_batches(
        BlockAnswerer,
        fn_constructor_args=(recipe, teacher, stores, counter, uuid.uuid4().hex[:8]),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            size=settings.actors,
            max_concurrent_calls_per_actor=calls,
            max_tasks_in_flight_per_actor=calls + 1,
        ),
        **settings.actor.options,
    )
    finished = {pending.split: pending.counts.finished for pending in splits}
    rows: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {split: Counter() for split in stores}
    for block in answered.iter_rows():
        split = block["split"]
        rows[split] += block["rows"]
        failed[split] += block["failed"]
        reasons[split].update([block["reason"]] if block["failed"] else [])
        ended = finished[split] + rows[split]
        if rows[split] >= JUDGED_ROWS and failed[split] > settings.max_failed_share * ended:
            raise failed_too_often(
                settings, failed[split], ended, reasons[split].most_common(1)[0][0]
            )


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
    counts: Callable[[], Counts],
    report: Report,
    *,
    total: int,
    finished: int,
) -> Callable[[], None]:
    """A function that brings the progress line and Ray's metrics up to date."""
    metrics = RationaleMetrics(run)
    start = time.monotonic()

    def show() -> None:
        done = sum(counts().values(), Counter())
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
