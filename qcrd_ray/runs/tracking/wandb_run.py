"""A run in a project of Weights & Biases; the run folder remembers it in wandb.json.

The account, the server and the mode are W&B's own business: `wandb login` or WANDB_API_KEY,
WANDB_BASE_URL, WANDB_ENTITY, WANDB_MODE. Its files lie in the run folder's wandb/; what could not
be uploaded, or was written with WANDB_MODE=offline, is sent by `wandb sync` from there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import Recipe
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_call
from qcrd_ray.runs.secrets import without_key
from qcrd_ray.runs.tracking.described import params

if TYPE_CHECKING:
    from wandb import Run

RUN_FILE = "wandb.json"
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 130}
_WAIT_S = 20.0  # for a server to take a run
_UPLOAD_S = 120.0  # for what is left at the end; it stays on the disk


def check(project: str) -> str:
    """Where metrics go, in words. Raises UserError as :func:`qcrd_ray.runs.tracking.check` does."""
    if find_spec("wandb") is None:
        raise UserError(
            "tracking.wandb is set and wandb is not installed: `pip install wandb`, or take the key"
            " out"
        )
    import wandb
    from wandb.errors import Error

    settings = wandb.setup().settings
    if settings.mode in ("offline", "disabled"):
        return f"Weights & Biases, project {project} (WANDB_MODE={settings.mode})"
    try:
        known = wandb.login(prompt=False, verify=True)
    except Error as error:
        raise UserError(
            f"tracking.wandb: {settings.base_url} cannot be used: {_said(error)}"
        ) from None
    if not known:
        raise UserError(
            f"tracking.wandb: nobody is logged in to {settings.base_url}: `wandb login`, set"
            " WANDB_API_KEY, or WANDB_MODE=offline to keep the numbers in the run folder"
        )
    return f"Weights & Biases at {settings.base_url}, project {project}"


class WandbRun:
    """A :class:`~qcrd_ray.runs.tracking.Sink` that is a run of Weights & Biases."""

    NAME: ClassVar[str] = "Weights & Biases"

    def __init__(self, recipe: Recipe, folder: RunFolder):
        assert recipe.tracking.wandb is not None, "the recipe names no project"
        self._recipe, self._folder, self._project = recipe, folder, recipe.tracking.wandb
        self._run: Run | None = None
        self._state: dict[str, Any] = {}

    def start(self) -> None:
        import wandb

        known = self._read()
        state = known or {"project": self._project, "id": uuid.uuid4().hex[:12], "sent": {}}
        call = describe_call(self._recipe.seed)
        self._run = wandb.init(
            project=self._project,
            id=state["id"],
            # a server is asked for a run only where there may be one
            resume="allow" if known else None,
            name=self._recipe.name,
            config=params(self._recipe) | {name: call[name] for name in ("qcrd_ray", "commit")},
            dir=str(self._folder.root),
            # neither what the terminal shows nor the caller's code is sent
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                symlink=False,
                silent=True,
                init_timeout=_WAIT_S,
                finish_timeout=_UPLOAD_S,
                finish_timeout_raises=True,
            ),
        )
        self._state = state
        self._write()

    def sent(self, objective: str) -> set[int]:
        # each training counts its own steps, where W&B knows one count
        self._open.define_metric(f"{objective}/step", hidden=True)
        self._open.define_metric(f"{objective}/*", step_metric=f"{objective}/step")
        return set(self._state["sent"].get(objective, []))

    def send(self, numbers: Mapping[str, float], *, objective: str, step: int) -> None:
        self._open.log(dict(numbers))
        self._state["sent"].setdefault(objective, []).append(step)
        self._write()

    def results(self, numbers: Mapping[str, float]) -> None:
        self._open.summary.update(dict(numbers))

    def artifact(self, path: Path) -> None:
        self._open.save(str(path), base_path=str(path.parent), policy="now", glob=False)

    def end(self, status: str) -> None:
        self._open.finish(exit_code=_EXIT_CODES[status])

    def said(self, error: Exception) -> str | None:
        from wandb.errors import Error

        known = isinstance(error, (Error, OSError))  # TimeoutError is an OSError
        return _said(error) if known else None

    @property
    def _open(self) -> Run:
        assert self._run is not None, "start has not been called"
        return self._run

    def _read(self) -> dict[str, Any] | None:
        """What an earlier call on this folder has sent to the same project."""
        file = self._folder.root / RUN_FILE
        if not file.exists():
            return None
        state = json.loads(file.read_text())
        return state if state["project"] == self._project else None

    def _write(self) -> None:
        write_text(self._folder.root / RUN_FILE, json.dumps(self._state, indent=2) + "\n")


def _said(error: Exception) -> str:
    """An error of W&B's without the key that lets in there."""
    return without_key(str(error), os.environ.get("WANDB_API_KEY"))
