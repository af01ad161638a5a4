"""A bucket behind a real S3 API on this machine, for Arrow's own S3 client."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SECRET = "hunter2hunter2hunter2"  # what must be found nowhere


@contextmanager
def bucket(monkeypatch) -> Iterator[str]:
    """The URI of a run folder in a new bucket, `s3://bucket/runs/demo?...`; the credentials are in
    the environment.
    """
    moto = pytest.importorskip("moto.server", reason="needs moto[s3,server]")
    import boto3

    given = {
        "ACCESS_KEY_ID": "an-id",
        "SECRET_ACCESS_KEY": SECRET,
        "DEFAULT_REGION": "us-east-1",
        "EC2_METADATA_DISABLED": "true",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = ":".join(map(str, server.get_host_and_port()))
    boto3.client("s3", endpoint_url=f"http://{address}").create_bucket(Bucket="bucket")
    try:
        yield f"s3://bucket/runs/demo?endpoint_override={address}&scheme=http&region=us-east-1"
    finally:
        urllib.request.urlopen(
            urllib.request.Request(f"http://{address}/moto-api/reset", method="POST")
        )  # buckets outlive a server
        server.stop()
