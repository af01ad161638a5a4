"""What the screen does not show: known lines of libraries, and nothing else."""

import subprocess
import sys

import pytest

SCRIPT = """
import logging, os, sys
from qcrd_ray.cluster.noise import quiet_libraries
with quiet_libraries():
    os.write(2, b"core: Actor has constructor arguments in the object store and "
                b"max_restarts > 0. If\\n")
    os.write(2, b"core: something else went wrong\\n")
    print("a traceback", file=sys.stderr)
    logging.warning("a warning")
    auth = logging.getLogger("ray._private.authentication.authentication_token_setup")
    auth.warning("Token authentication is enabled for this Ray cluster.")
    auth.warning("Token authentication is disabled for this Ray cluster.")
    os.write(2, b"no newline at the end")
print("afterwards", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def shown() -> str:
    call = [sys.executable, "-c", SCRIPT]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, check=True).stderr


def test_known_noise_is_dropped(shown):
    assert "constructor arguments" not in shown and "is enabled" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "core: something else went wrong",
        "a traceback",
        "a warning",
        "Token authentication is disabled",
        "no newline at the end",
        "afterwards",
    ],
)
def test_everything_else_is_shown(shown, line):
    assert line in shown


@pytest.mark.parametrize("end", ["os.abort()", "os._exit(1)"])
def test_the_last_lines_of_a_crash_are_shown(end):
    """Bug guarded: a thread filtered them, which ended before it could write them."""
    script = f"""
import os
from qcrd_ray.cluster.noise import quiet_libraries
with quiet_libraries():
    os.write(2, b"core: a check failed\\n" * 5)
    {end}
"""
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and done.stderr.count("core: a check failed") == 5


def test_it_runs_without_a_standard_error():
    script = "from qcrd_ray.cluster.noise import quiet_libraries as q\nwith q(): print(1)"
    call = ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, script]
    assert subprocess.run(call, stdout=subprocess.PIPE, timeout=60, check=True).stdout == b"1\n"


def test_rays_own_filter_drops_the_raylets_lines():
    """Ray reads the variable when it is imported: a rename of it would bring the lines back."""
    script = """
from qcrd_ray.cluster.noise import quiet_libraries
with quiet_libraries():
    from ray._private.ray_logging import stdout_deduplicator as lines
    noisy = "WARNING: 8 PYTHON worker processes have been started on node: f2 with address: 1.1.1.1"
    batch = {"ip": "1", "pid": "raylet", "job": None, "is_err": False}
    assert not [b for b in lines.deduplicate({**batch, "lines": [noisy]}) if b["lines"]]
    assert [b for b in lines.deduplicate({**batch, "lines": ["out of memory"]}) if b["lines"]]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
