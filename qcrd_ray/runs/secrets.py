"""API keys: the teacher endpoint's key and the key that callers of the student endpoint send.

A key is read on the node that uses it, when it is used. It is never logged, never pickled, never
written into the run folder, and no error message holds it: :func:`without_key` takes it out of what
others say.
"""

from __future__ import annotations

import os
import platform
import re

from qcrd_ray.data.json_lines import expand_path
from qcrd_ray.errors import UserError

_SHORTEST = 8  # characters of a key that is one: servers of one's own are given `none` or `EMPTY`


def read_api_key(*, section: str, file: str | None, variable: str) -> str | None:
    """The key in ``file``, or, where no file is given, in the environment variable ``variable``.

    Args:
        section: the recipe's section, for error messages: "teacher" or "serve".
        file: ``<section>.api_key_file``; `~` and ${VARIABLES} are expanded.
        variable: ``<section>.api_key_env``.

    Returns:
        The key without surrounding blanks. None if there is neither a file nor the variable.

    Raises:
        UserError: the file cannot be read, or it (or the variable) holds no usable key. An empty
            file or variable is an error too: a secret whose mount failed must not look like "no
            key", which would open an endpoint to everybody.
    """
    if file is not None:
        source = f"{section}.api_key_file: {file}"
        try:
            key = expand_path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not plain ASCII"
            # `from None`: a decoding error shows the bytes that it met
            raise UserError(
                f"{source} cannot be read on {platform.node()}: {reason}; expected a file with the"
                " key on one line"
            ) from None
    else:
        source = f"{section}.api_key_env: the variable {variable}"
        if variable not in os.environ:
            return None
        key = os.environ[variable].strip()
    if not key:
        raise UserError(f"{source} holds no key; put the key there, or remove it to use none")
    if not all("!" <= character <= "~" for character in key):
        raise UserError(
            f"{source} holds characters that no header can carry; a key is printable ASCII without"
            " blanks"
        )
    return key


def without_key(text: str, key: str | None) -> str:
    """``text``, which may be JSON, with "<key>" where it quotes the key.

    Some servers quote the key that they refuse, and JSON may write a character in three ways:
    ``/``, ``\\/`` and ``\\u002f``. A key of less than 8 characters is a word that means none, which
    stays: it would be taken out of answers too.
    """
    if not key or len(key) < _SHORTEST:
        return text
    spelt = (rf"(?:\\?{re.escape(each)}|\\u(?i:{ord(each):04x}))" for each in key)
    return re.sub("".join(spelt), "<key>", text)
