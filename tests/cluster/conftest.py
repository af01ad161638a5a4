"""One cluster for all tests of a module."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
import yaml
from hosts import PATH, Hosts, missing
from local_cluster import Cluster, filled, monitor_log, until


@pytest.fixture(scope="module")
def cluster(request):
    """Up with its head and one worker; whatever a test leaves of it ends with its hosts."""
    if reason := missing():
        pytest.skip(f"no hosts here: {reason}")
    folder = Path(f"/tmp/qcrd-{os.getpid()}")  # short: sockets lie below it
    with Hosts(folder, count=3) as hosts:
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        config = folder / "local.yaml"
        config.write_text(yaml.safe_dump(filled(hosts, token)))
        shared = folder / "shared"
        (folder / "tmp").mkdir()
        shared.mkdir()
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {
            "PATH": PATH,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "TMPDIR": str(folder / "tmp"),
        }
        env |= {
            "RAY_TMPDIR": str(folder / "tmp"),
            "RAY_ADDRESS": f"http://{hosts.addresses[0]}:8265",
        }
        cluster = Cluster(hosts=hosts, config=config, env=env, shared=shared)
        up = cluster.ray("up", "--yes", "--no-config-cache", config, timeout_s=240, RAY_ADDRESS="")
        assert up.returncode == 0, up.stdout + up.stderr
        until(
            lambda: len(cluster.alive()) == 2,
            within_s=180,
            what="the first worker",
            log=lambda: monitor_log(hosts),
        )
        yield cluster
