"""Keys and passwords in the wrong place: in a URI, or as a value of a recipe.

A recipe is copied into the run folder and into a report, and its URIs stand in error messages. So a
secret is refused there and read from the environment or a file; no message repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

# What stands before the @ of a URI. A password may hold a slash, which urlsplit takes for the
# path's: store keys do. Digits up to a slash are a port.
_USER = re.compile(r"(?<=://)[^/:@\s'\"]*(:(?!\d+/)[^\s@'\"]*)?@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")
_IN_QUERY = ("key", "token", "secret", "password", "signature")
_NAME = re.compile(
    r"(api|access|secret|private|account)_?key$|(^|hf|hub|api|auth|access|bearer|session|tracking)"
    r"_?token$|secret$|password$|^authorization$"
)
_SHORTEST = 8  # characters of a secret; HF_HUB_DISABLE_IMPLICIT_TOKEN is 1


def without_credentials(text: str) -> str:
    """A text without the user, password and query of the URIs in it."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def holds_credentials(uri: str) -> bool:
    """Whether a URI holds a password, or a key in its query."""
    user = _USER.search(uri)
    try:
        names = [name.lower() for name, _ in parse_qsl(urlsplit(uri).query)]
    except ValueError:  # an odd host; whoever connects there says so
        names = []
    return (user is not None and user[1] is not None) or any(
        word in name for name in names for word in _IN_QUERY
    )


def secrets_in(values: Mapping[str, object]) -> list[str]:
    """The names that hold a key or a password, by name: HF_TOKEN, hf_token, api_key."""
    return [
        name
        for name, value in values.items()
        if isinstance(value, str)
        and len(value) >= _SHORTEST
        and _NAME.search(name.lower().replace("-", "_"))
    ]


def _variable(name: str) -> str:
    # no mixed case, which is how many keys look
    if not re.fullmatch("[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*", name):
        raise ValueError(
            "must be the name of a variable, such as OPENAI_API_KEY, and not the key itself"
        )
    return name


VariableName = Annotated[str, AfterValidator(_variable)]
"""The name of an environment variable that holds a key, in capitals or in small letters."""
