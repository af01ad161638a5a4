"""python jobs/benchmarks/empty_endpoint.py PORT: Ray Serve with a handler that answers at once.

What a request to it takes is the least that one over Ray Serve's HTTP can take on this machine.
"""

from __future__ import annotations

import sys
import threading

from fastapi import FastAPI, Request
from ray import serve
from ray.serve.config import HTTPOptions

from qcrd_ray.cluster.resources import connect
from qcrd_ray.recipe import RayRecipe
from qcrd_ray.serving.application import MAX_ONGOING_REQUESTS

app = FastAPI()


@serve.deployment(name="empty", max_ongoing_requests=MAX_ONGOING_REQUESTS)
@serve.ingress(app)
class Empty:
    """Reads a body, as every endpoint must, and answers."""

    @app.post("/v1/predict")
    async def answer(self, request: Request) -> dict[str, str]:
        """Nothing."""
        await request.body()
        return {}

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Nothing, once it is there."""
        return {}


if __name__ == "__main__":
    connect(RayRecipe(address="local"))
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[1])),
        proxy_location="HeadOnly",
    )
    serve.run(Empty.bind(), route_prefix="/")
    threading.Event().wait()
