"""Blocks of questions in Ray Data actors, and what the driver hears of them meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum

import pyarrow as pa
import ray
from ray.actor import ActorProxy

from qcrd_ray.cluster.resources import Bundle
from qcrd_ray.data.records import Outcome
from qcrd_ray.rationales.asking import Counts, RationaleGenerator
from qcrd_ray.rationales.journal import Journal
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.recipe import Recipe
from qcrd_ray.teacher import Teacher

# What became of a block of a split; `failed` leaves out what was not asked, since the teacher had
# stopped, and `reason` is that of one of them.
ANSWERED_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("rows", pa.int32()),
        ("failed", pa.int32()),
        ("reason", pa.string()),
    ]
)

SEND_EVERY_S = 0.5
WAIT_S = 0.1  # between two looks whether the teacher is ready
DRAIN_S = 8.0  # of the 15 within which an interrupted stage ends


class Signal(Enum):
    """What the driver wants of those who ask."""

    WAIT = "the teacher is not ready yet"
    ASK = "the teacher can be asked"
    DRAIN = "ask nothing more"


class ProgressCounter:
    """An actor between the driver and those who ask: it passes on a signal, and sums up counts.

    Restarted, it counts from 0 again, and has the signal of the driver's next call.
    """

    def __init__(self):
        self._counts: Counts = {}
        self._signal = Signal.WAIT

    @ray.method
    def add(self, counts: Counts) -> Signal:
        """Add an actor's counts since its last call; return what it is to do."""
        for split, more in counts.items():
            self._counts.setdefault(split, Counter()).update(more)
        return self._signal

    @ray.method
    def exchange(self, signal: Signal) -> Counts:
        """Give all actors ``signal`` from their next call on; return the sums over all of them."""
        self._signal = signal
        return self._counts


def start_counter(resources: Bundle) -> ActorProxy[ProgressCounter]:
    """Start a ProgressCounter on a node that has ``resources``."""
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ProgressCounter)
    return actor.options(resources=resources).remote()


def drain(read: Callable[[], Counts]) -> None:
    """Wait until every request in flight has come back and is written, for DRAIN_S at most.

    ``read`` gives DRAIN to a ProgressCounter, and its sums.
    """
    start = time.monotonic()

    def in_flight() -> bool:
        requests = read().get("", Counter())
        return requests["back"] < requests["sent"]

    read()
    time.sleep(2 * SEND_EVERY_S)  # until every actor knows, and has told what it had sent
    while in_flight() and time.monotonic() - start < DRAIN_S:
        time.sleep(SEND_EVERY_S / 2)


class BlockAnswerer:
    """The callable of a Ray Data actor: blocks of pending requests become journals of rows.

    ``stores`` are those of the splits, by name. ``call`` names this call of the stage: see
    :meth:`RationaleStore.new_journal`.
    """

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        stores: Mapping[str, RationaleStore],
        counter: ActorProxy[ProgressCounter],
        call: str,
    ):
        self._generate = RationaleGenerator(recipe, teacher)
        self._stores, self._counter, self._call = stores, counter, call
        self._signal = Signal.WAIT
        self._touch: asyncio.Task[None] | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer the block that ``batch`` names, by split, shard and number, and write its rows.

        Of a block whose actor died, only what that had not written is asked again. Returns one row
        of ANSWERED_SCHEMA.
        """
        self._touch = self._touch or asyncio.ensure_future(self._keep_in_touch())
        ((split, shard, block),) = (tuple(row.values()) for row in batch.to_pylist())
        store = self._stores[split]
        requests = store.read_block(shard, block)
        done = store.answered(shard, block, self._call)
        written = set(done["id"].to_pylist())
        missing = requests.filter(
            pa.array([id not in written for id in requests["id"].to_pylist()], pa.bool_())
        )
        while self._signal is Signal.WAIT:  # Ray Data's actors start while the teacher does
            await asyncio.sleep(WAIT_S)
            await self._send()
        if self._signal is Signal.DRAIN:  # before anything of this block was asked
            missing = missing.slice(0, 0)
        with Journal(store.new_journal(shard, block, self._call)) as journal:
            sets = await self._generate(missing, journal.append, split=split)
        await self._send()
        outcomes = done.select(["outcome", "attempts", "reason"]).to_pylist()
        ended = [tuple(row.values()) for row in outcomes]
        ended += [(each.outcome, each.attempts, each.reason) for each in sets]
        failed = [reason for outcome, tries, reason in ended if outcome == Outcome.FAILED and tries]
        answered = {
            "split": split,
            "rows": len(ended),
            "failed": len(failed),
            "reason": failed[0] if failed else None,
        }
        return pa.Table.from_pylist([answered], schema=ANSWERED_SCHEMA)

    async def _keep_in_touch(self) -> None:
        while True:
            await asyncio.sleep(SEND_EVERY_S)
            await self._send()

    async def _send(self) -> None:
        self._signal = await self._counter.add.remote(self._generate.take_counts())
        self._generate.draining = self._signal is Signal.DRAIN
