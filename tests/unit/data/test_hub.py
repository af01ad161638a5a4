"""A hub that is away is noticed at once: Hugging Face's client would try for a minute."""

from __future__ import annotations

import socket
import time

import datasets
import pytest
from huggingface_hub import constants

from qcrd_ray.data import hub


@pytest.fixture
def closed_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def endpoint(monkeypatch, url):
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)


def test_within_the_block_the_libraries_know_that_it_is_away(monkeypatch, closed_port, caplog):
    endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    with hub.without_waiting():
        assert constants.is_offline_mode() and datasets.config.HF_HUB_OFFLINE
    assert not constants.is_offline_mode() and not datasets.config.HF_HUB_OFFLINE
    assert "127.0.0.1: Connection refused" in caplog.text


def test_a_hub_that_answers_is_asked(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}")
        with hub.without_waiting():
            assert not constants.is_offline_mode()


def test_a_proxy_is_left_to_the_client(monkeypatch, closed_port):
    """A machine behind one reaches the hub by it alone."""
    endpoint(monkeypatch, f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"http": "http://proxy"})
    assert hub.away() == ""


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch):
    """Bug guarded: the resolver has no time limit that a caller could set."""
    endpoint(monkeypatch, "http://nowhere.invalid")
    monkeypatch.setattr(hub, "ANSWER_S", 0.2)
    monkeypatch.setattr(hub, "_try", lambda *arguments: time.sleep(30))
    start = time.monotonic()
    assert hub.away() == "nowhere.invalid: no answer within a few seconds"
    assert time.monotonic() - start < 5
