"""The run folder: where each stage finds what the one before it left, and what a run was.

Layout (every stage's input and output is a file here):

    recipe.yaml                  the resolved recipe; another recipe is refused
    versions.json                seed, versions, commit and time of each call that worked in this
                                 folder
    questions/<split>.parquet    the questions read (QUESTION_SCHEMA), and <split>.rejected.parquet
                                 with reasons
    rationales/<split>/          rows/*.parquet (RATIONALE_SET_SCHEMA) and manifest.json; beside
    them spent.json: tokens paid for so far train/<objective>/           metrics.jsonl,
    tensorboard/, scores/, negatives/, snapshots/, checkpoints, best/, result.json
    evaluation/                  results.json, predictions.parquet
    student/                     the exported student, an ordinary Hugging Face folder
    seconds.json                 how long each stage of the last whole run took
    report.html                  all of it as one page
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from qcrd_ray.cluster.ray_internals import in_submitted_job
from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.data.records import RATIONALE_SET_SCHEMA
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.recipe.file import dump_recipe, flatten, load_recipe, within
from qcrd_ray.run.files import write_text
from qcrd_ray.run.provenance import describe_call
from qcrd_ray.run.storage import Mirror, is_uri, work_folder

# What may change between two calls on one folder: it moves work about, but no row, weight or number
# depends on it.
OPERATIONAL = (
    "compare",
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
    "train.worker.resources",
    "train.max_failures",
    "evaluate.worker.resources",
    "evaluate.workers",
)
_NO_RUN_FOLDER = (
    "run: {} is not empty and holds no recipe.yaml, so it is no run folder; name another one"
    " with run"
)


class RunFolder:
    """Paths of a run folder. Making one touches nothing on the disk; :meth:`open` does. ``mirror``:
    its URI, where it has one.
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

    @classmethod
    def check(cls, recipe: Recipe) -> RunFolder:
        """The recipe's run folder, if :meth:`open` would take it; nothing is made.

        Raises:
            UserError: the folder or the URI cannot be written, holds something else, or was made by
                another recipe.
        """
        root = resolve(recipe.run)
        folder = cls(root, mirror=Mirror(recipe.run, root) if is_uri(recipe.run) else None)
        folder._writable()
        if folder.mirror:
            folder._check_mirror(recipe)
        elif folder.recipe.exists():
            folder._same_recipe(recipe, folder.recipe)
        # taken over from another run
        elif folder.root.exists() and any(
            entry.name != "rationales" for entry in folder.root.iterdir()
        ):
            raise UserError(_NO_RUN_FOLDER.format(folder.root))
        return folder

    @classmethod
    def open(cls, recipe: Recipe) -> RunFolder:
        """Make the recipe's run folder, or go on in it; raises what :meth:`check` raises. What a
        URI holds is fetched.
        """
        folder = cls.check(recipe)
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
        """Bring the folder's URI, where it has one, into step with it; one that is out of reach
        just now gets a later push.

        Raises:
            UserError: another run has opened the URI.
        """
        if self.mirror:
            self.mirror.try_push()

    def in_step(self) -> AbstractContextManager[None]:
        """`with folder.in_step():` -- the folder's URI, where it has one, is kept in step with it,
        also when the block raises.
        """
        return self.mirror.in_step() if self.mirror else nullcontext()

    def questions(self, split: str) -> Path:
        return self.root / "questions" / f"{split}.parquet"

    def rejected(self, split: str) -> Path:
        return self.root / "questions" / f"{split}.rejected.parquet"

    def rationales(self, split: str) -> Path:
        return self.root / "rationales" / split

    def training(self, objective: str) -> Path:
        return self.root / "train" / objective

    def read_rationales(self, split: str) -> pa.Table:
        """All rationale sets of a split, in the order of their question ids so that no reader
        depends on how blocks were written.
        """
        files = sorted((self.rationales(split) / "rows").glob("*.parquet"))
        tables = [pq.read_table(file, schema=RATIONALE_SET_SCHEMA) for file in files]
        table = pa.concat_tables(tables) if tables else RATIONALE_SET_SCHEMA.empty_table()
        return table.sort_by([("question_id", "ascending")])

    def listing(self) -> list[tuple[str, int]]:
        """(relative path, bytes) of what a reader may want to open: files two levels down, deeper
        folders as one line each.
        """
        return [(_shown(path, self.root), size) for path, size in _sizes(self.root)]

    def _writable(self) -> None:
        """Whether a file can be made in the folder, or in the nearest folder above it that
        exists.
        """
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

    def _check_mirror(self, recipe: Recipe) -> None:
        self.mirror.check()
        there = self.mirror.read(self.recipe.name)
        if there is not None:
            with tempfile.TemporaryDirectory() as scratch:
                file = Path(scratch) / self.recipe.name
                file.write_bytes(there)
                self._same_recipe(recipe, file)
        elif self.mirror.listing():
            raise UserError(
                f"run: {self.mirror.name} is not empty and holds no recipe.yaml, so it is no run"
                " folder; name another one with run"
            )

    def _same_recipe(self, recipe: Recipe, file: Path) -> None:
        was = flatten(load_recipe(file).model_dump(mode="json", by_alias=True))
        now = flatten(recipe.model_dump(mode="json", by_alias=True))
        changed = [
            key
            for key in sorted(was.keys() | now.keys())
            if was.get(key) != now.get(key) and not within(key, OPERATIONAL)
        ]
        if changed:
            rows = "\n".join(
                f"  {key}: {was.get(key)!r} there, {now.get(key)!r} now" for key in changed[:10]
            )
            more = f"\n  and {len(changed) - 10} more" if len(changed) > 10 else ""
            raise UserError(
                f"run: {self.mirror.name if self.mirror else self.root} was made by another"
                f" recipe:\n{rows}{more}\nGive this run a folder of its own (--set run=...), or go"
                " on with the recipe that lies there."
            )


def resolve(run: str) -> Path:
    """The run folder as an absolute path; of a URI, the folder that is kept in step with it.

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
