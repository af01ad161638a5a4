"""Authentication by a bearer key: needed wherever other machines can reach the endpoint."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.runs.secrets import read_api_key
from qcrd_ray.serving.http_errors import RequestError


def read_key(recipe: ServingRecipe) -> str | None:
    """The key from `serve.api_key_file`, else from the variable `serve.api_key_env`, else None.

    Callers must send it.

    Raises:
        UserError: see :func:`qcrd_ray.runs.secrets.read_api_key`.
    """
    return read_api_key(section="serve", file=recipe.api_key_file, variable=recipe.api_key_env)


def check_host(host: str, *, key: str | None) -> None:
    """Raise UserError where other machines could reach ``host`` and there is no key."""
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UserError(
            f"serve.host: {host!r} is no IP address; use 127.0.0.1, or 0.0.0.0 with a key"
        ) from error
    if not loopback and key is None:
        raise UserError(
            f"serve.host: other machines could reach {host}, and this endpoint has no key to ask"
            " them for. Put one into the variable that serve.api_key_env names (QCRD_API_KEY), on"
            " every node that serves, or into a file that serve.api_key_file names; or serve on"
            " 127.0.0.1."
        )


class BearerAuth:
    """ASGI middleware: 401 without ``Authorization: Bearer <key>``, but on ``open_paths``."""

    def __init__(self, app: ASGIApp, *, key: str, open_paths: Collection[str]) -> None:
        self.app, self.open_paths = app, open_paths
        self._expected = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "lifespan"
            or scope["path"] in self.open_paths
            or self._authorized(scope)
        ):
            await self.app(scope, receive, send)
            return
        error = RequestError(
            401,
            "this endpoint needs its key: send the header 'Authorization: Bearer <key>'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": 'Bearer realm="qcrd"'},
        )
        await error.response()(scope, receive, send)

    def _authorized(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1:
            return False
        scheme, _, key = sent[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._expected)
