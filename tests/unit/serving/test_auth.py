"""The endpoint's key and its address: what is unsafe does not start, and no error shows a key."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving import auth as doors
from qcrd_ray.serving.health import Health


def test_the_file_goes_before_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("QCRD_API_KEY", "from-env")
    assert doors.read_key(ServingRecipe()) == "from-env"
    assert doors.read_key(ServingRecipe(api_key_env="ANOTHER")) is None
    (tmp_path / "key").write_text("from-file\n")
    assert doors.read_key(ServingRecipe(api_key_file=str(tmp_path / "key"))) == "from-file"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no key"),
        (b"\n \n", "holds no key"),
        (b"a b", "no header"),
        (b"s\xc3\xa9cret", "ASCII"),
    ],
)
def test_what_is_no_key_is_refused_unseen(tmp_path, content, told):
    """An empty secret (a mount that failed) taken for "no key" would open the endpoint."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UserError, match=told) as raised:
        doors.read_key(ServingRecipe(api_key_file=str(tmp_path / "key")))
    assert "a b" not in str(raised.value) and raised.value.__cause__ is None


def test_a_missing_key_file_is_named():
    with pytest.raises(UserError, match="api_key_file: /nowhere/key cannot be read"):
        doors.read_key(ServingRecipe(api_key_file="/nowhere/key"))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1"])
def test_a_public_address_wants_a_key(host):
    with pytest.raises(UserError, match=r"serve\.host: other machines could reach"):
        doors.check_host(host, key=None)
    doors.check_host(host, key="k")


def test_the_loopback_wants_none():
    for host in ("127.0.0.1", "::1", "localhost"):
        doors.check_host(host, key=None)
    with pytest.raises(UserError, match="no IP address"):
        doors.check_host("example.org", key="k")


def test_a_failed_batch_is_probed_before_the_replica_is_given_up():
    async def walk():
        health = Health(stuck_after_s=60)
        await health.check(lambda: 1 / 0)  # healthy: not probed
        with pytest.raises(ZeroDivisionError):
            await health.run("write", lambda: 1 / 0)
        assert health.trouble
        with pytest.raises(ZeroDivisionError):
            await health.check(lambda: 1 / 0)
        await health.check(lambda: None)
        assert not health.trouble

    asyncio.run(walk())


def test_a_hanging_batch_is_no_health():
    """A thread that never returns raises nothing: only the clock shows it."""

    async def walk():
        health, go_on = Health(stuck_after_s=0.05), threading.Event()
        work = asyncio.create_task(health.run("write", go_on.wait))
        await asyncio.sleep(0.01)
        await health.check(lambda: None)
        time.sleep(0.1)
        with pytest.raises(RuntimeError, match="busy with one batch"):
            await health.check(lambda: None)
        go_on.set()
        await work
        assert not health.trouble

    asyncio.run(walk())
