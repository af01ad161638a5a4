"""Student negatives: samplers generate them beside training, off the critical path.

A sampler is a long-lived Ray actor that swaps weights in place. Files are all that passes between
it and the training workers: it waits for a snapshot to appear and writes
``negatives/<round>.part-<i>-of-<n>.parquet``, which the workers read when the round comes. A
sampler that dies is restarted by Ray and goes on at the first part that is missing. A resumed
training reads the parts again and does not sample them anew.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.data.records import STUDENT_NEGATIVE_SCHEMA, StudentNegative
from qcrd_ray.errors import UserError
from qcrd_ray.inference import Engine, load_engine
from qcrd_ray.inference.select import vllm_share
from qcrd_ray.method.batching import keyed_seed
from qcrd_ray.method.negatives import snapshot_for
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_table, write_text
from qcrd_ray.tasks import build_task
from qcrd_ray.tasks.base import EXPLAIN
from qcrd_ray.training.checkpoints import SnapshotStore
from qcrd_ray.training.dataset import Row, TrainingSet, rounds_of
from qcrd_ray.training.process_group import use_tf32

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_POLL_S = 0.2

log = logging.getLogger(__name__)


def round_snapshot(recipe: Recipe, round: int) -> int | None:
    """The snapshot that samples the negatives of a round; None: the round has none.

    The rounds of supervised fine-tuning have none (``objective.sft_rounds``).
    """
    if not recipe.negatives.student or round < recipe.objective.sft_rounds:
        return None
    return snapshot_for(round, lag=recipe.lag, before_lag=recipe.negatives.before_lag)


class NegativesFolder:
    """The files of all rounds, each in as many parts as there are samplers."""

    def __init__(self, folder: Path, *, parts: int):
        self.folder, self.parts = folder, parts
        self.failure = folder / "failed.txt"

    def part(self, round: int, part: int) -> Path:
        """The file of one part of a round."""
        return self.folder / f"{round:05d}.part-{part}-of-{self.parts}.parquet"

    def missing(self, round: int) -> list[Path]:
        """The files of a round that are not written yet."""
        return [path for part in range(self.parts) if not (path := self.part(round, part)).exists()]

    def running(self, part: int) -> Path:
        """A file that is there while a sampler works; it can become :attr:`failure`."""
        return self.folder / f"sampler-{part}.running"

    def begin(self) -> None:
        """Forget an earlier failure, and remove the parts that cannot be read.

        A lost disk leaves such; their sampler makes them again.
        """
        self.failure.unlink(missing_ok=True)
        for part in range(self.parts):
            text = f"sampler {part} could not write why, as on a full disk; its log has the reason"
            write_text(self.running(part), text)
        for file in sorted(self.folder.glob("*.part-*.parquet")):
            try:
                pq.read_table(file)
            except (OSError, pa.ArrowInvalid) as error:
                log.warning("%s cannot be read and is sampled again: %s", file, error)
                file.unlink()

    def fail(self, part: int, reason: str) -> None:
        """Tell the training workers, which wait for the part, why it will not come."""
        try:
            write_text(self.failure, f"sampler {part}:\n{reason}")
        except OSError:  # a full disk has no room for a text, but for another name
            self.running(part).replace(self.failure)

    def write(self, round: int, part: int, rows: list[StudentNegative]) -> None:
        """Write one part of a round."""
        table = pa.Table.from_pylist([asdict(row) for row in rows], schema=STUDENT_NEGATIVE_SCHEMA)
        write_table(table, self.part(round, part))

    def read(self, round: int) -> list[StudentNegative]:
        """All negatives of a round, part after part.

        Raises:
            UserError: a part is missing.
        """
        if missing := self.missing(round):
            raise UserError(
                f"{missing[0]} is gone, and so is the snapshot that would sample it again"
                " (discriminator.replay reads it); delete the folder of this training to begin anew"
            )
        parts = (pq.read_table(self.part(round, part)).to_pylist() for part in range(self.parts))
        return [StudentNegative(**row) for rows in parts for row in rows]

    def wait(self, round: int, *, snapshot: int, timeout_s: float) -> float:
        """Wait until all parts of a round exist. Returns the seconds that it took.

        Raises:
            UserError: they did not come within ``timeout_s``.
            RuntimeError: a sampler failed; its traceback is in the message.
        """
        start = time.monotonic()
        while missing := self.missing(round):
            if self.failure.exists():
                raise RuntimeError(
                    f"a sampler of student negatives failed:\n{self.failure.read_text()}"
                )
            if time.monotonic() - start > timeout_s:
                names = ", ".join(path.name for path in missing)
                raise UserError(
                    f"the student negatives of round {round} (from snapshot {snapshot}) did not"
                    f" come within {timeout_s:g} s: {names} missing in {self.folder}. Give"
                    " negatives.samplers or negatives.sampler.cpus more, or raise"
                    " negatives.wait_timeout_s."
                )
            time.sleep(_POLL_S)
        return time.monotonic() - start


def sampling_metrics(
    negatives: Sequence[StudentNegative], *, snapshot: int, waited_s: float
) -> dict[str, Any]:
    """The entries on student negatives in a round's row of metrics."""
    count = len(negatives)
    right = sum(bool(negative.right) for negative in negatives)
    unparsed = sum(negative.answer is None for negative in negatives)
    return {
        "snapshot": snapshot,
        "sampled": count,
        "right_share": right / count if count else 0.0,
        "unparsed_share": unparsed / count if count else 0.0,
        "waited_s": round(waited_s, 3),
    }


class RoundNegatives:
    """The student negatives of each round, as the training workers read them.

    ``folder`` is train/<objective>, ``data`` the prepared training set. ``alone``: no sampler works
    beside training, so a round's negatives are sampled here when they are read.
    """

    def __init__(self, recipe: Recipe, folder: Path, data: Path, *, alone: bool):
        self.recipe = recipe
        self.files = NegativesFolder(folder / "negatives", parts=recipe.negatives.samplers)
        self._sampler = NegativeSampler(recipe=recipe, folder=folder, data=data) if alone else None

    def read(self, round: int) -> tuple[list[StudentNegative], dict[str, Any]]:
        """A round's negatives, waited for if they are late, and their metrics."""
        settings, snapshot = self.recipe.negatives, round_snapshot(self.recipe, round)
        if snapshot is None:
            return [], {}
        if self._sampler:
            for part in range(settings.samplers):
                self._sampler.write_part(round, part)
        waited_s = self.files.wait(round, snapshot=snapshot, timeout_s=settings.wait_timeout_s)
        negatives = self.files.read(round)
        return negatives, sampling_metrics(negatives, snapshot=snapshot, waited_s=waited_s)

    def replayed(self, round: int) -> list[StudentNegative]:
        """The negatives of the `discriminator.replay` rounds before this one."""
        return [
            negative
            for past in range(max(0, round - self.recipe.discriminator.replay), round)
            if round_snapshot(self.recipe, past) is not None
            for negative in self.files.read(past)
        ]


class NegativeSampler:
    """Samples parts of every round's negatives, of which there are ``recipe.negatives.samplers``.

    One engine serves all rounds: it takes the weights of each snapshot in place. ``folder`` is
    train/<objective>, ``data`` the prepared training set.
    """

    def __init__(self, *, recipe: Recipe, folder: Path, data: Path):
        self.recipe, self.data = recipe, data
        self.files = NegativesFolder(folder / "negatives", parts=recipe.negatives.samplers)
        self._snapshots = SnapshotStore(folder / "snapshots", keep=recipe.lag + 1)
        self._training_set: TrainingSet | None = None
        self._engine: Engine | None = None
        self._loaded: Path | None = None  # the snapshot whose weights the engine has

    def run(self, part: int) -> None:
        """Write one part of every round, each as soon as its snapshot exists."""
        try:
            for round in range(self.recipe.train.rounds):
                self.write_part(round, part)
        except Exception:
            self.files.fail(part, traceback.format_exc())
            raise

    def write_part(self, round: int, part: int) -> None:
        """Write one part of a round, as soon as its snapshot exists.

        It does nothing if the part exists, the round has no negatives, or its snapshot has gone:
        then the round is over.
        """
        snapshot = round_snapshot(self.recipe, round)
        if snapshot is None or self.files.part(round, part).exists():
            return
        if self._snapshots.is_gone(snapshot):
            return
        while not self._snapshots.exists(snapshot):
            time.sleep(_POLL_S)
        self._training_set = self._training_set or TrainingSet(self.data)
        rounds = rounds_of(self.recipe, len(self._training_set))
        share = rounds.question_indices(round)[part :: self.recipe.negatives.samplers]
        rows = list(self._training_set.read(share).values()) if share else []
        engine = self._engine_with(self._snapshots.path(snapshot))
        self.files.write(
            round, part, list(self._sample(engine, rows, round=round, snapshot=snapshot))
        )

    def _engine_with(self, snapshot: Path) -> Engine:
        """The engine, with the weights of ``snapshot``."""
        if self._engine is None:
            settings = self.recipe.negatives
            self._engine = load_engine(
                snapshot,
                engine=settings.engine,
                batch_size=settings.batch_size,
                max_input_tokens=self.recipe.student.max_input_tokens,
                trust_remote_code=self.recipe.student.trust_remote_code,
                gpu_memory_utilization=vllm_share(settings.sampler.gpus),
            )
        elif snapshot != self._loaded:
            self._engine.load_weights(snapshot)
        self._loaded = snapshot
        return self._engine

    def _sample(
        self, engine: Engine, rows: list[Row], *, round: int, snapshot: int
    ) -> Iterator[StudentNegative]:
        settings, task = self.recipe.negatives, build_task(self.recipe.task)
        generated = engine.generate(
            [EXPLAIN + row.input for row in rows],
            n=settings.per_question,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=self.recipe.student.max_target_tokens,
            seed=keyed_seed(self.recipe.seed, "negatives", round),
        )
        for row, samples in zip(rows, generated, strict=True):
            for sample in samples:
                answer = task.parse(sample.text, row.question).answer
                yield StudentNegative(
                    question_id=row.question.id,
                    round=round,
                    snapshot=snapshot,
                    text=sample.text,
                    answer=answer,
                    right=None if answer is None or row.answer is None else answer == row.answer,
                    finish_reason=sample.finish_reason,
                    tokens=sample.tokens,
                )


def start_samplers(sampler: NegativeSampler) -> list[ActorHandle]:
    """Start the recipe's samplers, one for each part.

    Each works until its rounds are done. Kill them when the training ends.
    """
    import ray  # here, because a training in one process has no samplers beside it

    settings = sampler.recipe.negatives
    sampler.files.begin()
    actor_class: Any = ray.remote(_SamplerActor)  # ray.remote is typed for functions
    actors = [
        actor_class.options(
            **settings.sampler.options,
            max_restarts=-1,
            max_task_retries=-1,
            runtime_env={
                "env_vars": {
                    "OMP_NUM_THREADS": str(settings.sampler.cores),
                    "TOKENIZERS_PARALLELISM": "false",
                }
            },
        ).remote(sampler)
        for _ in range(settings.samplers)
    ]
    for part, actor in enumerate(actors):
        actor.run.remote(part)
    return actors


class _SamplerActor:
    def __init__(self, sampler: NegativeSampler):
        self.sampler = sampler

    def run(self, part: int) -> None:
        import torch

        recipe = self.sampler.recipe
        torch.set_num_threads(recipe.negatives.sampler.cores)
        use_tf32(recipe.train.tf32)
        self.sampler.run(part)
