"""Several hosts on one Linux machine, for tests of what crosses a network. Needs root.

Each host has its own network, process, mount, host-name and IPC namespace, its own home, /tmp/ray
and /dev/shm, and an ssh server. `ray stop` on one ends that one's Ray alone, because it sees no
other host's processes. The checkout is hidden from them unless they ask for it: what a job runs is
what was submitted. All other folders are the machine's own, so any of them can play the shared
storage.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

NEEDED = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "rsync": "rsync",
}
NETWORK = "10.78.0"
BRIDGE = "qcrdbr"
ROOT = Path(__file__).resolve().parents[2]
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"

_BOOT = """
set -e
hostname {name}
mount --bind {folder}/etc_hosts /etc/hosts
mount --bind {folder}/empty /etc/resolv.conf
mount -t tmpfs -o size=3g tmpfs /dev/shm
mkdir -p /tmp/ray && mount --bind {own}/ray /tmp/ray
for folder in {hidden}; do mount -t tmpfs -o size=1m tmpfs $folder; done
mount -t overlay overlay -o lowerdir=$HOME,upperdir={own}/home,workdir={own}/work $HOME
rm -rf $HOME/.ray
exec $(command -v sshd) -D -e -f /dev/null -h {folder}/host_key -o PidFile=none \\
    -o AuthorizedKeysFile={folder}/authorized_keys \\
    -o StrictModes=no -o PermitRootLogin=yes -o UsePAM=no -o SetEnv=PATH={path}
"""


def missing() -> str:
    """Why there can be no hosts here; "" where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are made of Linux namespaces, by root"
    packages = sorted(
        {package for command, package in NEEDED.items() if not shutil.which(command, path=PATH)}
    )
    return f"packages are missing: {', '.join(packages)}" if packages else ""


class Hosts:
    """``count`` hosts qcrd0, qcrd1, ... while the `with` block runs.

    ``folder`` must be short: Ray's sockets lie under it.
    """

    def __init__(self, folder: Path, *, count: int, sees_checkout: bool = False):
        self.folder = folder
        self.hidden = (
            [] if sees_checkout else [ROOT / part for part in ("qcrd_ray", "jobs", "tests")]
        )
        self.names = [f"qcrd{number}" for number in range(count)]
        self.addresses = [f"{NETWORK}.{10 + number}" for number in range(count)]
        self.key = folder / "key"
        self._booted: list[subprocess.Popen] = []

    def __enter__(self) -> Hosts:
        self.down()  # what a killed session has left
        self._write_files()
        try:
            _ip("link", "add", BRIDGE, "type", "bridge")
            _ip("addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
            _ip("link", "set", BRIDGE, "up")
            for name, address in zip(self.names, self.addresses, strict=True):
                self._boot(name, address)
            for address in self.addresses:
                self._wait_for_ssh(address)
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def run(self, host: int, command: str, *, timeout_s: float = 60.0) -> str:
        """Run a shell command on a host, as its root would over ssh; returns what it printed."""
        done = subprocess.run(
            self._ssh(self.addresses[host], command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, (
            f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def processes(self, host: int) -> list[str]:
        """The command lines of a host's processes, without its ssh server's own."""
        lines = self.run(host, "ps -eo args --no-headers").splitlines()
        own = ("ps -eo", "sshd", "bash", "unshare")
        return [
            line
            for line in map(str.strip, lines)
            if not line.startswith(own) and "sshd" not in line.split(" ")[0]
        ]

    def down(self) -> None:
        """End the hosts and all that runs on them.

        A process namespace dies with its first process.
        """
        for booted in self._booted:
            booted.send_signal(signal.SIGKILL)
            booted.wait()
        self._booted.clear()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            subprocess.run(["ip", "link", "del", f"v{name}"], capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("key", "host_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key], check=True
            )
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        # Each host's name must resolve to its own address, else gloo takes 127.0.0.1; no resolver
        # at all answers at once that it knows nothing, where an unreachable one costs seconds.
        (self.folder / "empty").touch()
        pairs = zip(self.addresses, self.names, strict=True)
        (self.folder / "etc_hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address, name in pairs)
        )

    def _boot(self, name: str, address: str) -> None:
        own = self.folder / name
        for part in ("ray", "home", "work"):
            (own / part).mkdir(parents=True)
        _ip("netns", "add", name)
        _ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", f"v{name}", "master", BRIDGE, "up")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", name, "link", "set", link, "up")
        _ip("-n", name, "route", "add", "default", "via", f"{NETWORK}.254")
        boot = _BOOT.format(
            name=name,
            folder=self.folder,
            own=own,
            hidden=" ".join(map(str, self.hidden)),
            path=PATH,
        )
        call = ["setpriv", "--pdeathsig", "KILL"]  # with us, however we end
        call += [
            "ip",
            "netns",
            "exec",
            name,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--uts",
            "--ipc",
            "--mount-proc",
            "--kill-child",
        ]
        with (own / "log").open("w") as log:
            booted = subprocess.Popen(
                [*call, "bash", "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._booted.append(booted)

    def _wait_for_ssh(self, address: str) -> None:
        for _ in range(50):
            if subprocess.run(self._ssh(address, "true"), capture_output=True).returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError("\n".join(path.read_text() for path in self.folder.glob("*/log")))

    def _ssh(self, address: str, command: str) -> list[str]:
        options = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "ConnectTimeout=5",
        )
        return [
            "ssh",
            "-i",
            str(self.key),
            *(f"-o{option}" for option in options),
            f"root@{address}",
            command,
        ]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
