"""A run folder on object storage: stages work in a folder on a disk, which is mirrored to a URI.

Arrow, safetensors and DeepSpeed map, append to and rename files, which object stores cannot do.

Opening fetches what the URI holds. A push follows every stage, every minute meanwhile, and the end,
also after an error. It sends changed files in the order in which they were written, and JSON files
last: every stage writes its manifest or result last, so half a push never looks like a finished
stage.

Every run that opens a URI leaves a new token there. If the token is still its own, a later run on
the same machine keeps its local folder, since nobody else has worked on the URI; a run whose token
has been replaced stops instead of mixing its files with another's.

Names that begin with a dot (half-written files) are no part of a run folder and are not mirrored.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from qcrd_ray.errors import UserError
from qcrd_ray.recipe.credentials import holds_credentials, without_credentials
from qcrd_ray.runs.files import write_text
from qcrd_ray.runs.periodic import periodically

PUSH_EVERY_S = 60.0
WORK = "QCRD_WORK"
TOKEN = ".token"  # at the URI: who opened it last
# in the work folder: the token, the next one while it is written, and the size and time of each
# file as it was last pushed
STATE = ".mirror.json"
# stores in which a file appears when all of it has arrived
_WHOLE_OR_NOTHING = ("s3", "gcs", "abfs")

Stamp = tuple[int, int]  # bytes, modification time in ns

log = logging.getLogger(__name__)


def is_uri(run: str) -> bool:
    """Whether ``run`` is a URI and not a path."""
    return "://" in run


def redacted(uri: str) -> str:
    """The URI without user, password and query, for messages and reports."""
    parts = urlsplit(without_credentials(uri))
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def work_folder(uri: str) -> Path:
    """The local folder of a URI: below $QCRD_WORK, or in the user's cache.

    On a cluster all nodes must see it under one path.
    """
    base = Path(os.environ.get(WORK) or "~/.cache/qcrd_ray").expanduser().absolute()
    return base / hashlib.sha256(redacted(uri).rstrip("/").encode()).hexdigest()[:16]


class Overtaken(UserError):
    """Another run has opened the URI."""


class Mirror:
    """A URI and the local folder that is mirrored to it.

    Making one opens no connection, except to find an S3 bucket's region. Every method raises
    UserError if the store is unknown, out of reach or refuses, or if another run has opened the
    URI.
    """

    def __init__(self, uri: str, folder: Path):
        self.name = redacted(uri)
        self._uri = uri
        self.folder = folder
        if urlsplit(uri).username is not None or holds_credentials(uri):
            raise UserError(
                f"run: {self.name} is given with a key, which would be written into the run folder;"
                " give it by the environment"
            )
        with self._user_errors("open"):
            self._store, path = fs.FileSystem.from_uri(uri)
        self._path = path.rstrip("/")
        self._token: str | None = None
        self._pushed: dict[str, Stamp] = {}
        self._pushing = threading.Lock()

    def check(self) -> None:
        """Check that the store answers and, if that leaves no folder behind, can be written."""
        self.read("recipe.yaml")
        if self._store.type_name in _WHOLE_OR_NOTHING:
            probe = f".writable-{uuid.uuid4().hex}"
            self._write(probe, b"")
            self._delete(probe)

    def listing(self) -> list[str]:
        """Relative names of the files at the URI."""
        with self._user_errors("list"):
            infos = self._store.get_file_info(
                fs.FileSelector(self._path, recursive=True, allow_not_found=True)
            )
        names = (
            info.path.removeprefix(self._path).lstrip("/")
            for info in infos
            if info.type == fs.FileType.File
        )
        return sorted(name for name in names if not _hidden(name))

    def read(self, name: str) -> bytes | None:
        """The content of a small file at the URI, None if there is none."""
        with self._user_errors("read"):
            try:
                with self._store.open_input_stream(f"{self._path}/{name}") as stream:
                    return stream.read()
            except FileNotFoundError:
                return None

    def open(self) -> None:
        """Bring the local folder into step with the URI, and leave a new token there.

        If the token is still this folder's, the folder is kept: it holds what a run on this machine
        had not pushed when it was killed. Otherwise it is fetched anew.
        """
        state = self._read_state()
        token = (self.read(TOKEN) or b"").decode()
        if not token or token not in (state["token"], state["next"]):
            self._fetch(state)
        else:
            self._token = token
            # By the store's own list: a push that was cut short has recorded nothing, so what it
            # sent is sent, or deleted, again.
            self._pushed = {
                name: tuple(state["pushed"].get(name, (-1, -1))) for name in self.listing()
            }
        new = uuid.uuid4().hex
        self._write_state(new)  # killed behind the next line, it is known for ours
        self._write(TOKEN, new.encode())
        self._token = new
        self._write_state()

    def push(self) -> None:
        """Upload what has changed in the folder, and delete at the URI what it no longer has.

        Raises:
            Overtaken: another run has opened the URI.
        """
        with self._pushing:
            if (token := self.read(TOKEN)) is None or token.decode() != self._token:
                raise Overtaken(
                    f"run: another run has opened {self.name} since; this one leaves it alone. Its"
                    f" files lie in {self.folder}"
                )
            files = _stamps(self.folder)
            gone = self._pushed.keys() - files.keys()
            for name in filter(_is_json, gone):  # before the files that they describe change
                self._delete(name)
            changed = [name for name, stamp in files.items() if self._pushed.get(name) != stamp]
            for name in sorted(changed, key=lambda name: (_is_json(name), files[name][1])):
                self._upload(name, files[name])
            for name in itertools.filterfalse(_is_json, gone):
                self._delete(name)
            self._write_state()

    def in_step(self, *, every_s: float = PUSH_EVERY_S) -> AbstractContextManager[None]:
        """Push every ``every_s`` seconds while the block runs, and once when it ends or raises."""
        return periodically(self.push, every_s=every_s)

    def try_push(self) -> None:
        """:meth:`push`; a store that is out of reach is logged, and left to a later push.

        Raises:
            Overtaken: another run has opened the URI.
        """
        try:
            self.push()
        except Overtaken:
            raise
        except UserError as error:
            log.warning("%s; trying again later", error)

    def _fetch(self, state: dict) -> None:
        """Fetch all that the URI holds. A folder with something unpushed is moved aside."""
        if (
            self.folder.exists()
            and any(self.folder.iterdir())
            and not (self.folder / STATE).exists()
        ):
            raise UserError(
                f"run: {self.folder}, the work folder of {self.name}, holds something else; name"
                f" another place with ${WORK}"
            )
        is_ours = state["token"] or state["next"]  # and not a fetch that was cut short
        pushed = {name: tuple(stamp) for name, stamp in state["pushed"].items()}
        if is_ours and _stamps(self.folder).items() - pushed.items():
            aside = self.folder.with_name(f"{self.folder.name}.unpushed-{uuid.uuid4().hex[:8]}")
            self.folder.rename(aside)
            log.warning(
                "another run has worked on %s since; what was not pushed from here is kept in %s",
                self.name,
                aside,
            )
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self._token, self._pushed = None, {}
        self._write_state()  # without a token: a fetch that is cut short is begun again
        for name in self.listing():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with self._user_errors("read"):
                fs.copy_files(
                    f"{self._path}/{name}",
                    str(file),
                    source_filesystem=self._store,
                    destination_filesystem=fs.LocalFileSystem(),
                )
        self._pushed = _stamps(self.folder)

    def _upload(self, name: str, stamp: Stamp) -> None:
        """Upload a file.

        JSON that has changed since it was listed waits for the next push: it may describe files
        that are not uploaded yet.
        """
        source = self.folder / name
        try:
            if _is_json(name):
                content = source.read_bytes()
                if _stamp(source) != stamp:
                    return
                self._write(name, content)
            else:
                local = fs.LocalFileSystem()
                self._put(
                    name, lambda landing: fs.copy_files(str(source), landing, local, self._store)
                )
        except (FileNotFoundError, UserError):
            if source.exists():
                raise
            return  # gone since it was listed: the next push deletes it
        self._pushed[name] = stamp

    def _write(self, name: str, content: bytes) -> None:
        def send(landing: str) -> None:
            with self._store.open_output_stream(landing) as stream:
                stream.write(content)

        self._put(name, send)

    def _put(self, name: str, send: Callable[[str], None]) -> None:
        """Upload with ``send`` so that the file appears whole.

        Stores with folders get it under another name first, and rename it.
        """
        target = f"{self._path}/{name}"
        with self._user_errors("write"):
            if self._store.type_name in _WHOLE_OR_NOTHING:
                send(target)
                return
            parent, _, last = target.rpartition("/")
            self._store.create_dir(parent, recursive=True)
            send(f"{parent}/.{last}.part")
            self._store.move(f"{parent}/.{last}.part", target)

    def _delete(self, name: str) -> None:
        with self._user_errors("delete in"):
            try:
                self._store.delete_file(f"{self._path}/{name}")
            except FileNotFoundError:
                log.debug("%s is gone from %s already", name, self.name)
        self._pushed.pop(name, None)

    def _read_state(self) -> dict:
        empty = {"token": None, "next": None, "pushed": {}}
        try:
            return empty | json.loads((self.folder / STATE).read_bytes())
        except (FileNotFoundError, ValueError):  # torn: nothing is known to be pushed
            return empty

    def _write_state(self, new: str | None = None) -> None:
        """``new`` is the token that is about to be written at the URI."""
        state = {"token": self._token, "next": new, "pushed": self._pushed}
        write_text(self.folder / STATE, json.dumps(state))

    @contextmanager
    def _user_errors(self, what: str) -> Iterator[None]:
        """Turn the store's errors into UserErrors: credentials, a bucket's name, the network."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).replace(self._uri, self.name).split())[:400]
            raise UserError(f"run: cannot {what} {self.name}: {reason}") from error


def _stamps(folder: Path) -> dict[str, Stamp]:
    stamps = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(root) / name
            # A file may be deleted, or renamed, while we look.
            with suppress(FileNotFoundError):
                if not name.startswith("."):
                    stamps[path.relative_to(folder).as_posix()] = _stamp(path)
    return stamps


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_json(name: str) -> bool:
    """Manifests and results are JSON; the files that they describe must be there before them."""
    return name.endswith(".json")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
