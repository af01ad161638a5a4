"""The faults: each a name, a stage, and a few lines that cause it for real."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from chaos_process import Missed
from chaos_stages import Place
from chaos_teacher import BUSY, OUTAGE, for_seconds, hung, odd
from chaos_trial import DONE, INTERRUPTED, KILLED, MISTAKE, TERMINATED, Fault, Trial

# --- What is done at the moment ---


def driver(trial: Trial) -> None:
    trial.command.kill()


def one_of(pattern: str) -> Callable[[Trial], None]:
    """SIGKILL one process of the command, by what its command line begins with."""

    def kill(trial: Trial) -> None:
        trial.command.kill(trial.chance.choice(trial.command.find(pattern)))

    return kill


def sigterm(trial: Trial) -> None:
    trial.command.terminate()


def ctrl_c(trial: Trial) -> None:
    trial.command.interrupt()


def second_driver(trial: Trial) -> None:
    """The same command, while the first works: it is refused, and names the first."""
    first, second = trial.command, trial.start()
    code = second.wait(trial.deadline_s)
    if code == DONE and first.code is not None:
        raise Missed("the first driver had ended")
    assert code == MISTAKE, second.words[-1000:]
    assert f"process {first.pid} on" in " ".join(second.words.split()), second.words


def full_disk(trial: Trial) -> None:
    try:
        with _ballast(trial).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        assert error.errno == errno.ENOSPC, error


def room(trial: Trial) -> None:
    words = trial.command.words
    assert "disk is full" in words or "No space left on device" in words, words[-1000:]
    _ballast(trial).unlink()


def _ballast(trial: Trial) -> Path:
    return trial.place.home / "ballast"


def outage(trial: Trial) -> None:
    trial.teacher.fault = for_seconds(10.0, OUTAGE)


def busy(trial: Trial) -> None:
    trial.teacher.fault = for_seconds(5.0, BUSY)


# --- What is done to files between two calls ---


def halve(file: Path) -> None:
    """The second half of a file is gone."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def torn(files: Callable[[Place], list[Path]], damage: Callable[[Path], object] = halve):
    """Damage the newest of some files."""

    def tear(trial: Trial) -> None:
        there = files(trial.place)
        assert there, "there is no file to tear"
        damage(max(there, key=lambda file: file.stat().st_mtime_ns))

    return tear


def zeroed(file: Path) -> None:
    """Its size is known, and its content came back as zeros."""
    file.write_bytes(bytes(file.stat().st_size))


def torn_lines(file: Path) -> None:
    with file.open("ab") as lines:
        lines.write(bytes(4096) + b'\n{"round": 9, "st')


def both(*each: Callable[[Trial], object]) -> Callable[[Trial], None]:
    def tear(trial: Trial) -> None:
        for one in each:
            one(trial)

    return tear


def checkpoint(place: Place) -> list[Path]:
    """The files of the newest checkpoint that is whole; the largest of them counts."""
    newest = max(
        (place.training / "checkpoints").glob("*/state.json"),
        key=lambda file: file.stat().st_mtime_ns,
    )
    return [max(newest.parent.rglob("*.pt"), key=lambda file: file.stat().st_size)]


def _in_generation(name: str) -> Callable[[Place], list[Path]]:
    return lambda place: list((place.run.root / "rationales").glob(name))


def _in_training(name: str) -> Callable[[Place], list[Path]]:
    return lambda place: list(place.training.glob(name))


def with_odd_replies(trial: Trial) -> None:
    trial.teacher.fault = partial(odd, teacher=trial.teacher)


def with_hung_requests(trial: Trial) -> None:
    trial.teacher.fault = hung


# --- Moments ---


def is_locked(place: Place) -> bool:
    """A driver has the run folder; its Ray is yet to start."""
    return place.run.lock.exists() and place.run.lock.stat().st_size > 0


def _notes(pattern: str) -> Callable[[Place], bool]:
    """The training's own words on what it does match ``pattern``."""
    return lambda place: bool(re.search(pattern, place.note))


def writes_checkpoint(place: Place) -> bool:
    folders = (place.training / "checkpoints").glob("round-*/")
    return any(not (folder / "state.json").exists() for folder in folders)


def two_checkpoints(place: Place) -> bool:
    return place.rounds >= 2


FAULTS = [
    Fault("driver SIGKILL", "generate", driver, (KILLED,)),
    Fault("asking actor", "generate", one_of("^ray::MapWorker"), (DONE,)),
    Fault("progress counter", "generate", one_of("^ray::ProgressCounter"), (DONE,)),
    Fault("raylet", "generate", one_of("raylet/raylet "), ()),
    Fault("SIGTERM", "generate", sigterm, (TERMINATED,)),
    Fault("Ctrl-C", "generate", ctrl_c, (INTERRUPTED,)),
    Fault(
        "disk full",
        "generate",
        full_disk,
        (MISTAKE,),
        between=room,
        disk=True,
        passes=1.2,  # what is in flight is answered, and cannot be written
    ),
    Fault("two drivers", "generate", second_driver, (DONE,), is_locked),
    Fault("HTTP 500 for 10 s", "generate", outage, (DONE,)),
    Fault("429 with Retry-After on all for 5 s", "generate", busy, (DONE,)),
    Fault("hung requests", "generate", codes=(DONE,), before=with_hung_requests),
    Fault("odd replies", "generate", codes=(DONE,), before=with_odd_replies),
    Fault(
        "torn journal, zeroed spent.json",
        "generate",
        driver,
        (KILLED,),
        between=both(
            torn(lambda place: place.journals),
            torn(_in_generation("**/spent.json"), zeroed),
        ),
        passes=1.15,  # what half a journal held is lost, and paid for again
    ),
    Fault(
        "torn rows",
        "generate",
        codes=(DONE,),
        begins_in="generate",
        before=torn(_in_generation("train/rows/*.parquet")),
    ),
    Fault("driver SIGKILL", "train", driver, (KILLED,)),
    Fault(
        "worker, pretraining",
        "train",
        one_of("^ray::RayTrainWorker"),
        (DONE,),
        _notes("^pretraining"),
    ),
    Fault(
        "worker, step", "train", one_of("^ray::RayTrainWorker"), (DONE,), _notes(r"^round \d+/\d+$")
    ),
    Fault(
        "worker, negatives",
        "train",
        one_of("^ray::RayTrainWorker"),
        (DONE,),
        _notes("student negatives$"),
    ),
    Fault(
        "worker, checkpoint", "train", one_of("^ray::RayTrainWorker"), (DONE,), writes_checkpoint
    ),
    Fault("sampler", "train", one_of("^ray::_SamplerActor"), (DONE,)),
    Fault("raylet", "train", one_of("raylet/raylet "), ()),
    Fault("SIGTERM", "train", sigterm, (TERMINATED,)),
    Fault("Ctrl-C", "train", ctrl_c, (INTERRUPTED,)),
    Fault("disk full", "train", full_disk, (MISTAKE,), between=room, disk=True),
    Fault("two drivers", "train", second_driver, (DONE,), is_locked),
    Fault(
        "torn newest checkpoint",
        "train",
        driver,
        (KILLED,),
        two_checkpoints,
        between=torn(checkpoint),
    ),
    Fault(
        "torn negatives part",
        "train",
        driver,
        (KILLED,),
        two_checkpoints,
        between=torn(_in_training("negatives/*.parquet")),
    ),
    Fault(
        "zeros and half a line in metrics.jsonl",
        "train",
        driver,
        (KILLED,),
        two_checkpoints,
        between=torn(_in_training("metrics.jsonl"), torn_lines),
    ),
    Fault("driver SIGKILL", "evaluate", driver, (KILLED,)),
    Fault("driver SIGKILL", "predict", driver, (KILLED,)),
    Fault("driver SIGKILL", "compare", driver, (KILLED,)),
]
