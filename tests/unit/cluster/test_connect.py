"""Which Ray a command joins. Ray itself is replaced: what matters is what it is asked for."""

from __future__ import annotations

import socket
import time

import pytest

from qcrd_ray.cluster import resources
from qcrd_ray.errors import UserError
from qcrd_ray.recipe import RayRecipe


@pytest.mark.parametrize(
    ("given", "variable", "in_job", "joined"),
    [
        (None, None, False, "local"),
        (None, "10.0.0.1:6379", False, "10.0.0.1:6379"),
        (None, "local", False, "local"),
        (None, "auto", False, "auto"),
        (None, None, True, "auto"),
        ("local", "10.0.0.1:6379", False, "local"),
        ("local", "10.0.0.1:6379", True, "10.0.0.1:6379"),
        ("auto", None, False, "auto"),
        ("auto", "10.0.0.1:6379", False, "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", False, "10.0.0.2:6379"),
    ],
)
def test_a_running_ray_is_joined_only_where_it_is_named(
    monkeypatch, tmp_path, given, variable, in_job, joined
):
    """Bug guarded: a second `qcrd serve` searched the processes of the machine, joined the private
    Ray of the first and would have died with it.
    """
    asked = []
    monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(resources, "in_submitted_job", lambda: in_job)
    monkeypatch.setattr(resources, "prepare_serve_proxies", lambda: asked.append("guarded"))
    monkeypatch.setattr(resources, "session_parent", lambda: tmp_path)
    monkeypatch.setattr(resources, "keep_token_private", lambda make: None)
    monkeypatch.setattr(resources, "_init", lambda **options: asked.append(options["address"]))
    monkeypatch.setattr(resources, "_check_listens", lambda address: None)
    if variable is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    resources.connect(RayRecipe(address=given))
    assert asked == (["guarded", "local"] if joined == "local" else [joined])


def test_the_default_names_no_ray():
    assert RayRecipe().address is None


@pytest.mark.parametrize(
    "failure",
    [
        Exception("The current node timed out during startup. This could happen because"),
        RuntimeError("Failed to start GCS.\n Last 2 lines of error files"),
        OSError(12, "Cannot allocate memory"),
        TimeoutError(),
    ],
)
def test_a_ray_that_does_not_start_is_told_with_its_logs(monkeypatch, tmp_path, failure):
    """Bug guarded: a bare traceback out of Ray's own code, which raises plain Exceptions."""

    def fail(**options):
        raise failure

    monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(resources, "prepare_serve_proxies", lambda: None)
    monkeypatch.setattr(resources, "session_parent", lambda: tmp_path)
    monkeypatch.setattr(resources, "keep_token_private", lambda make: None)
    monkeypatch.setattr(resources, "_init", fail)
    monkeypatch.setattr(resources, "_check_listens", lambda address: None)
    said = str(failure).splitlines()[0] if str(failure) else "TimeoutError"
    with pytest.raises(UserError) as error:
        resources.connect(RayRecipe(address="local"))
    assert f"a local Ray did not start: {said}" in str(error.value)
    assert f"{tmp_path}/ray/session_latest/logs" in str(error.value)
    with pytest.raises(UserError) as error:
        resources.connect(RayRecipe(address="nobody:1"))
    assert f"cannot join a Ray cluster at nobody:1: {said}" in str(error.value)


def test_an_address_where_nothing_listens_is_told_at_once(monkeypatch):
    """Bug guarded: Ray tried for twenty minutes, and nothing was on the screen."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
        monkeypatch.setattr(resources, "keep_token_private", lambda make: None)
        monkeypatch.setattr(resources, "_init", lambda **options: pytest.fail("Ray was asked"))
        began = time.monotonic()
        with pytest.raises(UserError, match=rf"cannot join a Ray cluster at {address}: .*refused"):
            resources.connect(RayRecipe(address=address))
        assert time.monotonic() - began < 5
