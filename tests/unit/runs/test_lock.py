"""One driver at a time in a run folder, and none locked out by one that is dead."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_run_folder import recipe

from qcrd_ray.errors import UserError
from qcrd_ray.runs import lock
from qcrd_ray.runs.folder import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from qcrd_ray.runs.lock import hold
hold(Path(sys.argv[1]), folder="the folder")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_EVERY_S", 0.05)
    monkeypatch.setattr(lock, "DEAD_AFTER_S", 0.6)
    monkeypatch.setattr(lock, "_WATCH_EVERY_S", 0.05)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / ".lock"
    yield path
    lock.release(path)


@pytest.fixture
def other(path):
    """Another process that has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def elsewhere(path) -> None:
    """The file as a driver on another machine writes it."""
    holder = {"token": "x", "host": "far", "place": "?", "pid": 7, "since": "2026-01-01T00:00:00"}
    path.write_text(json.dumps(holder))


def test_a_second_driver_is_refused_and_the_first_is_named(path, other):
    """Bug guarded: two drivers in one folder paid for the same questions."""
    told = rf"process {other.pid} on .+, since 20.* works in the folder"
    with pytest.raises(UserError, match=told):
        lock.hold(path, folder="the folder")


def test_a_killed_driver_locks_nobody_out(path, other):
    os.kill(other.pid, signal.SIGKILL)
    assert other.wait(10) == -signal.SIGKILL
    start = time.monotonic()
    lock.hold(path, folder="the folder")
    assert time.monotonic() - start < 0.5
    assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("kernel", [True, False], ids=["locks", "no locks"])
def test_a_beat_on_another_machine_is_a_living_driver(path, monkeypatch, kernel):
    """Also on a file system that has no locks at all."""
    if not kernel:

        def none(file, operation):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", none)
    elsewhere(path)
    over = threading.Event()

    def beat():
        while not over.wait(0.1):
            os.utime(path)

    beating = threading.Thread(target=beat)
    beating.start()
    with pytest.raises(UserError, match="process 7 on far, since 2026-01-01"):
        lock.hold(path, folder="the folder")
    over.set()
    beating.join()
    lock.hold(path, folder="the folder")  # a minute without a beat: it is dead
    assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_driver_that_ended_in_order_is_not_waited_for(path, monkeypatch):
    lock.hold(path, folder="the folder")
    lock.release(path)
    monkeypatch.setattr(lock, "_place", lambda: "another machine")
    start = time.monotonic()
    lock.hold(path, folder="the folder")
    assert time.monotonic() - start < 0.5


def test_a_driver_that_was_taken_for_dead_stops(path, monkeypatch):
    """A machine that slept: its driver must not go on beside the one that took over."""
    stopped = threading.Event()
    monkeypatch.setattr(lock._thread, "interrupt_main", stopped.set)
    lock.hold(path, folder="the folder")
    elsewhere(path)
    assert stopped.wait(10)
    lock.release(path)
    assert json.loads(path.read_text())["host"] == "far"  # and leaves the other's name there


def test_a_run_folder_is_held_until_its_block_ends(tmp_path):
    folder = RunFolder.open(recipe(tmp_path / "run"))
    assert RunFolder.open(recipe(tmp_path / "run")).root == folder.root  # the same process
    pickle.dumps(folder)  # it travels to workers
    command = [sys.executable, "-c", HOLD, folder.lock]
    with folder.in_step():
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "UserError: run: process" in refused.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            RunFolder.open(recipe(tmp_path / "run"))
        process.kill()
    assert ".lock" not in dict(folder.listing())
