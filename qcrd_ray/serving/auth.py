"""Who may ask: the loopback without a key, everybody else with the bearer key."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.http_errors import RequestError


def read_key(recipe: ServingRecipe) -> str | None:
    """The key that callers must send: the key file's, else the variable's, else None. It is read
    where it is used and never passed on.

    Raises:
        UserError: the file cannot be read, or what is there is no key.
    """
    if recipe.api_key_file is not None:
        source = f"api_key_file: {recipe.api_key_file}"
        try:
            key = Path(recipe.api_key_file).expanduser().read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it holds more than ASCII"
            # the cause would show what the file holds
            raise UserError(f"{source} cannot be read ({reason})") from None
    else:
        source = f"api_key_env: the variable {recipe.api_key_env}"
        key = os.environ.get(recipe.api_key_env)
        if key is None:
            return None
        key = key.strip()
    if not key:
        raise UserError(
            f"{source} holds no key; put one there, or unset it to serve the loopback without a key"
        )
    if not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"{source} holds characters that no header can carry; a key is printable ASCII without"
            " blanks"
        )
    return key


def check_host(host: str, *, key: str | None) -> None:
    """Raise UserError where other machines could reach ``host`` and nobody would ask them for a
    key.
    """
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
    """ASGI middleware: without ``Authorization: Bearer <key>`` every path but the ``open_paths``
    ends in 401.
    """

    def __init__(self, app: ASGIApp, *, key: str, open_paths: Collection[str]) -> None:
        self.app, self.open_paths = app, open_paths
        self._expected = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self.open_paths or self._knows(scope):
            await self.app(scope, receive, send)
            return
        refusal = RequestError(
            401,
            "this endpoint wants its key: send the header 'Authorization: Bearer <key>'",
            code="invalid_api_key",
            headers={"WWW-Authenticate": 'Bearer realm="qcrd"'},
        )
        await refusal.response()(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1:
            return False
        scheme, _, key = sent[0].partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._expected)
