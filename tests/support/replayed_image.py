"""Run the instructions of a Dockerfile where no Docker is: in a clean Debian of their own.

    unshare --mount python tests/support/replayed_image.py clusters/Dockerfile <folder> [ARG=...]

`debootstrap` makes the root in ``<folder>``: Debian's smallest system with its Python, which stands
for the image that `FROM` names. Every `RUN` is a `chroot` into it, by the user and in the folder of
the moment, so a package that is not installed is missing there. It takes root, a network that
reaches Debian and a package index, and 6 GB.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN = "bookworm"
PYTHON = "/opt/image"  # a virtual environment that stands for the image's own Python
PACKAGES = ("ca-certificates", "python3", "python3-dev", "python3-venv")
# How this machine reaches its package indexes.
NETWORK = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/ssl/certs",
    "/etc/apt/apt.conf.d",
)


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in their order, each with its text on one line."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


class Image:
    """A root that Dockerfile instructions change."""

    def __init__(self, folder: Path, context: Path, arguments: dict[str, str]):
        self.root, self.context, self.arguments = folder / "root", context, arguments
        self.environment = {
            "PATH": f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.environment |= pip
        self.user, self.workdir = "root", "/"
        folder.mkdir(parents=True)
        included = f"--include={','.join(PACKAGES)}"
        _run("debootstrap", "--variant=minbase", included, DEBIAN, str(self.root))
        local = [path for value in pip.values() for path in re.findall(r"(?<!:/)/[\w./-]+", value)]
        for path in ("/proc", "/dev", *NETWORK, *local):
            if Path(path).exists():
                self._bind(Path(path))
        self.run(f"python3 -m venv {PYTHON}")

    def _bind(self, path: Path) -> None:
        """Show a file or folder of the host at its own place."""
        place = self.root / str(path).lstrip("/")
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        _run("mount", "--rbind", str(path), str(place))

    def run(self, command: str) -> None:
        """A `RUN` line."""
        print(f"RUN {command}", flush=True)
        home = "/root" if self.user == "root" else f"/home/{self.user}"
        variables = self.environment | self.arguments | {"HOME": home}
        assigned = [f"{name}={value}" for name, value in variables.items()]
        script = f"cd {shlex.quote(self.workdir)} && {command}"
        user = ["--userspec", f"{self.user}:{self.user}"]
        _run("env", "-i", *assigned, "chroot", *user, str(self.root), "/bin/sh", "-ec", script)

    def copy(self, words: str) -> None:
        """A `COPY` line of files and folders of the context."""
        *sources, target = shlex.split(words)
        place = self.root / self._absolute(target).lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        for source in sources:
            path = self.context / source
            if path.is_dir():
                hidden = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(path, place, dirs_exist_ok=True, ignore=hidden)
            else:
                shutil.copy2(path, place / path.name)

    def apply(self, word: str, rest: str) -> None:
        """Any instruction; ValueError for one that is not known here."""
        if word == "RUN":
            self.run(rest)
        elif word == "COPY":
            self.copy(rest)
        elif word == "WORKDIR":
            self.workdir = self._absolute(rest)
            (self.root / self.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            self.user = rest
        elif word == "ENV":
            name, value = rest.split("=", 1)
            self.environment[name] = value
        elif word == "ARG":
            name, _, default = rest.partition("=")
            self.arguments.setdefault(name, default)
        elif word != "FROM":
            raise ValueError(f"{word}: an instruction that is not known here")

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.workdir, path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    dockerfile, folder = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    given = dict(argument.split("=", 1) for argument in sys.argv[3:])
    check = given.pop("CHECK", None)
    image = Image(folder, dockerfile.absolute().parents[1], given)
    for word, rest in instructions(dockerfile.read_text()):
        image.apply(word, rest)
    if check:
        image.run(check)
    print("whole", flush=True)


if __name__ == "__main__":
    main()
