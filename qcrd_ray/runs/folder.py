"""The run folder: the one place where stages leave their results and find those of others.

Layout:

    recipe.yaml                  the resolved recipe; the folder refuses another one
    versions.json                a list of run.provenance.Call, one for each call that worked here
    questions/
        <split>.parquet          questions as they were read (tasks.spool.WRITTEN_SCHEMA)
        <split>.rejected.parquet rows that could not be used, with reasons
    rationales/<split>/
        requests/, pending/      the questions under the ids of their requests; those to be asked
        rows/*.parquet           voted rationales (RATIONALE_SET_SCHEMA), a file for each shard
        rows/<shard>/*.jsonl     those that were answered since, until they are merged
        stale/                   rows of questions that have changed
        manifest.json            run.manifests.RationaleManifest
        spent.json               tokens paid for, of a teacher with a budget
    train/
        start/, data/            the student before training, and what it learns from
        <objective>/             metrics.jsonl, result.json (run.results), tensorboard/, scores/,
                                 negatives/, snapshots/, checkpoints/, best/
    evaluation/                  results.json (run.results.Results), predictions.parquet
    student/                     the exported student, an ordinary Hugging Face folder
    compare/                     tables of `qcrd compare`
    seconds.json                 seconds of each stage of the last whole run
    mlflow.json                  the MLflow run that belongs to this folder
    report.html                  all of it as one page

A file appears whole or not at all (:mod:`qcrd_ray.runs.files`). A folder given as a URI is worked
on in a local copy (:mod:`qcrd_ray.runs.storage`).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.cluster.ray_internals import in_submitted_job
from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import dump_recipe, flatten, load_recipe, within
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.lock import hold, release
from qcrd_ray.runs.provenance import describe_call
from qcrd_ray.runs.storage import Mirror, is_uri, work_folder

# Keys that may change between two calls on one folder: no row depends on them, and no weight or
# number, but for the draws of dropout, which go by worker and micro-batch.
OPERATIONAL = (
    "compare",
    "data.rationales",
    "run",
    "ray",
    "serve",
    "tracking",
    "generation",
    "teacher.min_replicas",
    "teacher.max_replicas",
    "teacher.replica.resources",
    "teacher.api_key_env",
    "teacher.api_key_file",
    "teacher.max_spent_tokens",
    "negatives.sampler.resources",
    "negatives.wait_timeout_s",
    "train.workers",
    "train.worker.resources",
    "train.micro_batch_size",
    "train.checkpoint_every_steps",
    "train.max_failures",
    "discriminator.micro_batch_tokens",
    "evaluate.worker.resources",
    "evaluate.workers",
)
# What rationales come of; before a training begins, nothing else in the folder depends on a key.
ASKED_BY = ("seed", "task", "data", "teacher", "sampling", "vote")
_TRAINED = ("train", "evaluation", "student", "compare")
_LOCK = ".lock"
_NOT_A_RUN_FOLDER = (
    "run: {} is not empty and holds no recipe.yaml, so it is no run folder; name another one"
    " with run"
)


class RunFolder:
    """The paths of a run folder. Making one touches nothing on the disk; :meth:`open` does.

    ``mirror`` is the folder's URI, None for a folder on a disk.
    """

    def __init__(self, root: str | Path, *, mirror: Mirror | None = None):
        self.root = Path(root)
        self.mirror = mirror
        self.recipe = self.root / "recipe.yaml"
        self.versions = self.root / "versions.json"
        self.evaluation = self.root / "evaluation"
        self.student = self.root / "student"
        self.seconds = self.root / "seconds.json"
        self.report = self.root / "report.html"
        # outside of a work folder, which is fetched anew
        self.lock = (
            self.root.with_name(f".{self.root.name}{_LOCK}") if mirror else self.root / _LOCK
        )

    @classmethod
    def check(cls, recipe: Recipe) -> RunFolder:
        """The recipe's run folder, checked as :meth:`open` does. Nothing is created.

        Raises:
            UserError: the folder or the URI cannot be written, holds something else, or was made by
                another recipe.
        """
        root = resolve(recipe.run)
        folder = cls(root, mirror=Mirror(recipe.run, root) if is_uri(recipe.run) else None)
        folder._check_writable()
        if folder.mirror:
            folder._check_mirror(folder.mirror, recipe)
        elif folder.recipe.exists():
            there = [entry.name for entry in folder.root.iterdir()]
            folder._check_same_recipe(recipe, folder.recipe, there)
        # rationales/ alone may be there: a user may take them over from another run
        elif folder.root.exists() and any(
            entry.name not in ("rationales", _LOCK) for entry in folder.root.iterdir()
        ):
            raise UserError(_NOT_A_RUN_FOLDER.format(folder.root))
        return folder

    @classmethod
    def open(cls, recipe: Recipe) -> RunFolder:
        """Create the recipe's run folder, or continue in it. What a URI holds is fetched.

        The folder is this process's until the block of :meth:`in_step` or the process ends.

        Raises:
            UserError: as :meth:`check`; or another driver works in the folder.
        """
        folder = cls.check(recipe)
        hold(folder.lock, folder=folder.mirror.name if folder.mirror else str(folder.root))
        if folder.mirror:
            folder.mirror.open()
        calls = json.loads(folder.versions.read_text()) if folder.versions.exists() else []
        write_text(folder.recipe, dump_recipe(recipe))
        write_text(
            folder.versions, json.dumps([*calls, describe_call(recipe.seed)], indent=2) + "\n"
        )
        if folder.mirror:
            folder.mirror.push()
        return folder

    def push(self) -> None:
        """Upload what has changed to the folder's URI, if it has one.

        A store that is out of reach is only logged: a later push makes up for it.

        Raises:
            UserError: another run has opened the URI.
        """
        if self.mirror:
            self.mirror.try_push()

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Push regularly while the block runs and once at its end, also when it raises.

        Then the folder is free for other drivers.
        """
        try:
            with self.mirror.in_step() if self.mirror else nullcontext():
                yield
        finally:
            release(self.lock)

    def questions(self, split: str) -> Path:
        """The questions of a split, as they were read."""
        return self.root / "questions" / f"{split}.parquet"

    def rejected(self, split: str) -> Path:
        """The rows of a split that could not be used."""
        return self.root / "questions" / f"{split}.rejected.parquet"

    def rationales(self, split: str) -> Path:
        """The folder of a split's rationales."""
        return self.root / "rationales" / split

    def training(self, objective: str) -> Path:
        """The folder of the training for one objective."""
        return self.root / "train" / objective

    def self_training(self, objective: str) -> Path:
        """The folder of the second training for one objective, on the student's own samples."""
        return self.training(objective) / "self_training" / objective

    def student_training(self, recipe: Recipe) -> Path:
        """The folder of the training that the run's student comes from: the last one."""
        objective = recipe.objective.name
        again = recipe.self_training.vote != "none"
        return self.self_training(objective) if again else self.training(objective)

    def training_begun(self) -> Path | None:
        """The folder of trainings, if one on the rationales has a checkpoint or has ended."""
        home = self.root / "train"
        begun = any(home.glob("*/checkpoints/*/")) or any(home.glob("*/result.json"))
        return home if begun else None

    def rationale_files(self, split: str) -> list[Path]:
        """The files of a split's rationale sets (RATIONALE_SET_SCHEMA), one for each shard.

        Each is sorted by question id. A question's shard depends on its id and on how many shards
        there are, so the order of all rows is the same however they came to be answered.

        Raises:
            UserError: `qcrd generate` was stopped before it had asked everything. What it answered
                since is in no shard yet, and training on the rest would leave it out.
        """
        home = self.rationales(split)
        if any((home / "rows").glob("*/[!.]*.jsonl")) or any((home / "pending").glob("[!.]*")):
            raise UserError(
                f"run: the teacher has not been asked all questions of {split} in {self.root}:"
                " generating was interrupted. Run `qcrd generate` with this recipe to its end"
                " first; it goes on from what is answered."
            )
        return sorted((home / "rows").glob("*.parquet"))

    def read_rationales(self, split: str) -> pa.Table:
        """All rationale sets of a split in one table, for splits that fit into memory."""
        return read_rationales(self.rationale_files(split))

    def listing(self) -> list[tuple[str, int]]:
        """(relative path, bytes) of files and of folders two levels down, for a reader."""
        return [(_shown(path, self.root), size) for path, size in _sizes(self.root)]

    def _check_writable(self) -> None:
        """Raise UserError unless the folder, or its nearest existing parent, is writable."""
        nearest = next(path for path in (self.root, *self.root.parents) if path.exists())
        try:
            probe = nearest / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"run: cannot write in {nearest}: {error.strerror}; name a folder that you may"
                " write in"
            ) from error

    def _check_mirror(self, mirror: Mirror, recipe: Recipe) -> None:
        mirror.check()
        content = mirror.read(self.recipe.name)
        if content is not None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / self.recipe.name
                file.write_bytes(content)
                there = [name.partition("/")[0] for name in mirror.listing()]
                self._check_same_recipe(recipe, file, there)
        elif mirror.listing():
            raise UserError(_NOT_A_RUN_FOLDER.format(mirror.name))

    def _check_same_recipe(self, recipe: Recipe, file: Path, there: Sequence[str]) -> None:
        """Raise UserError where what is ``there`` was made with other keys than the recipe's."""
        was = flatten(load_recipe(file).model_dump(mode="json", by_alias=True))
        now = flatten(recipe.model_dump(mode="json", by_alias=True))
        changed = [
            key
            for key in sorted(was.keys() | now.keys())
            if was.get(key) != now.get(key) and not within(key, OPERATIONAL)
        ]
        asked = [key for key in changed if within(key, ASKED_BY)]
        if not asked and not set(there) & set(_TRAINED):
            return
        if changed:
            rows = "\n".join(
                f"  {key}: {was.get(key)!r} there, {now.get(key)!r} now" for key in changed[:10]
            )
            more = f"\n  and {len(changed) - 10} more" if len(changed) > 10 else ""
            keep = (
                f" The rationales need not be asked again: --rationales {self.root} takes them over"
                " (data.rationales)."
                if "rationales" in there and not self.mirror and _same_requests(asked)
                else ""
            )
            raise UserError(
                f"run: {self.mirror.name if self.mirror else self.root} was made by another"
                f" recipe:\n{rows}{more}\nGive this run a folder of its own (--set run=...), or go"
                f" on with the recipe that lies there.{keep}"
            )


def _same_requests(changed: Sequence[str]) -> bool:
    """Whether the teacher is asked the same where these keys of :data:`ASKED_BY` have changed."""
    return all(within(key, ("data", "vote")) for key in changed)


def read_rationales(files: Sequence[Path]) -> pa.Table:
    """The rationale sets of ``files`` in one table (RATIONALE_SET_SCHEMA)."""
    tables = [pq.read_table(file, schema=RATIONALE_SET_SCHEMA) for file in files]
    return pa.concat_tables(tables) if tables else RATIONALE_SET_SCHEMA.empty_table()


def resolve(run: str) -> Path:
    """The run folder as an absolute path; for a URI, its local copy.

    Raises:
        UserError: a relative path inside a submitted Ray job, whose working directory is a
            temporary copy that goes away with the job.
    """
    if is_uri(run):
        return work_folder(run)
    path = expand_path(run)
    if not path.is_absolute() and in_submitted_job():
        raise UserError(
            f"run: {run} is relative, and a submitted job's working directory goes away with it;"
            " give an absolute path"
        )
    return path.absolute()


def _sizes(root: Path) -> Iterator[tuple[Path, int]]:
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            for inner in sorted(entry.iterdir()):
                if not inner.name.startswith("."):
                    yield inner, _bytes(inner)
        else:
            yield entry, entry.stat().st_size


def _bytes(path: Path) -> int:
    return (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    )


def _shown(path: Path, root: Path) -> str:
    return f"{path.relative_to(root)}{'/' if path.is_dir() else ''}"
