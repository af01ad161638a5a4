"""What a command's own Ray leaves on the machine is its user's alone: session folder and token.

Ray opens its session folder to everybody (mode 0777): worker logs, spilled objects, and the sockets
of its processes. It writes its token with the usual mode, and whoever reads that runs code in every
Ray of the user.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from qcrd_ray.errors import UserError

# A socket's path has at most 107 bytes, and Ray's continue below the folder like this.
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.99"
_MOST_BYTES = 107

log = logging.getLogger(__name__)


def session_parent() -> Path:
    """A folder that this user alone can enter, for the sessions of a Ray that is started here.

    ``qcrd-<user id>`` in RAY_TMPDIR, in TMPDIR, or in /tmp: the first that leaves room for a
    socket's name. It stays when Ray has gone, with the logs of each session.

    Raises:
        UserError: something of that name is there, and it is no folder of this user.
    """
    places = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), tempfile.gettempdir(), "/tmp")
    folders = [Path(place, f"qcrd-{os.getuid()}").absolute() for place in places if place]
    fitting = [each for each in folders if len(os.fsencode(each)) + len(_SOCKET) <= _MOST_BYTES]
    folder = (fitting or folders)[0]
    with suppress(FileExistsError):
        folder.mkdir(parents=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(
            f"{folder} is no folder of yours, and Ray's files would lie in it: have it removed, or"
            " name another place in RAY_TMPDIR"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def keep_token_private(*, make: bool) -> None:
    """Let nobody else read the token with which this user's processes enter a Ray.

    ~/.ray/auth_token gets mode 0600. A file that RAY_AUTH_TOKEN_PATH names is the user's to mend,
    and is warned of.

    Args:
        make: write a new token where there is none, before Ray does so for everybody to read.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if make and not named and os.environ.get("RAY_AUTH_MODE", "token").lower() == "token":
        _make_token(file)
    try:
        found = file.stat()
    except OSError:  # Ray says what is wrong with a token that it needs
        return
    if not found.st_mode & 0o077:
        return
    if not named and found.st_uid == os.getuid():
        file.chmod(0o600)
    else:
        log.warning(
            "others on this machine can read Ray's token %s, and with it run code as you: chmod"
            " 600 it",
            file,
        )


def _make_token(file: Path) -> None:
    """Write a token as Ray makes them, unless there is one: 64 hexadecimal digits."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if file.exists():
        return
    # under another name first: another command must not find half of it
    descriptor, new = tempfile.mkstemp(dir=file.parent)  # mode 0600
    try:
        with open(descriptor, "w") as content:
            content.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            os.link(new, file)
    finally:
        os.unlink(new)
