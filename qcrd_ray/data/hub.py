"""The Hugging Face hub, where it does not answer: asked once, and not for a minute of retries.

Its client tries again and again, with growing pauses, for each file. A machine without a network
knows at the first try, so the libraries are told that there is none and look into their caches.
"""

from __future__ import annotations

import logging
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants

ANSWER_S = 4.0

log = logging.getLogger(__name__)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Within the block, Hugging Face's libraries use their caches alone if the hub is away."""
    reason = "" if constants.HF_HUB_OFFLINE else away()
    if not reason:
        yield
        return
    log.warning("the Hugging Face hub is away, and only its cache here is read: %s", reason)
    told: list[Any] = [constants]
    if find_spec("datasets"):  # a model is read without it
        from datasets import config

        told.append(config)
    was = [module.HF_HUB_OFFLINE for module in told]
    try:
        for module in told:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, offline in zip(told, was, strict=True):
            module.HF_HUB_OFFLINE = offline


def away() -> str:
    """Why the hub cannot be reached, in words; "" where it answers, or a proxy stands between."""
    hub = urlsplit(constants.ENDPOINT)
    if hub.scheme in urllib.request.getproxies() or not hub.hostname:
        return ""
    port = hub.port or (443 if hub.scheme == "https" else 80)
    found = ["no answer within a few seconds"]
    # in a thread: a name server that says nothing is waited for without end
    trying = threading.Thread(target=_try, args=(hub.hostname, port, found), daemon=True)
    trying.start()
    trying.join(ANSWER_S)
    return found[-1] and f"{hub.hostname}: {found[-1]}"


def _try(host: str, port: int, found: list[str]) -> None:
    try:
        with socket.create_connection((host, port), timeout=ANSWER_S):
            found.append("")
    except OSError as error:
        found.append(error.strerror or str(error))
