"""Under which names the endpoint answers, and to which web pages.

An endpoint on the loopback has no key, and trusts whoever reaches it. A web page of a stranger
reaches it through its reader's browser, by a name that is made to point to 127.0.0.1 (DNS
rebinding). Such a request carries the stranger's name in `Host`, and mostly in `Origin`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from qcrd_ray.serving.http_errors import RequestError


class KnownHosts:
    """ASGI middleware: 403 unless `Host` is localhost, an IP address or one of ``names``, and
    `Origin`, where there is one, is the same host or one of ``names``.

    An IP address is safe: a page under it comes from the machine that has it.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self.app, self.names = app, {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._known(scope):
            await self.app(scope, receive, send)
            return
        error = RequestError(
            403,
            "this endpoint does not answer under that name, or not to pages of another site; names"
            " beside localhost and IP addresses stand in serve.allowed_hosts",
        )
        await error.response()(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 or len(origins) > 1:
            return False
        host = _name("//" + hosts[0].decode("latin-1"))
        if host not in self.names and not _is_address(host):
            return False
        if not origins:
            return True
        origin = _name(origins[0].decode("latin-1"))
        # another port of the same host is another site
        same = origins[0].partition(b"://")[2].lower() == hosts[0].lower()
        return same or origin in self.names - {"localhost"}


def _name(url: str) -> str:
    """The host of ``url`` in lower case, without its port; "" where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
