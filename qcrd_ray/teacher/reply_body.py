"""The body of an endpoint's reply, read piece by piece and never beyond a limit.

A few hundred kilobytes of gzip can unpack to gigabytes, and httpx unpacks a piece whole before
anyone can count it. So the requests allow gzip alone, and it is unpacked here.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from qcrd_ray.teacher.base import TeacherError

MAX_REPLY_BYTES = 16 << 20  # unpacked; 32 samples of 32 thousand tokens are some 5 MB
ACCEPTED = {"Accept-Encoding": "gzip"}  # the header of a request whose reply is read here
_GZIP = 31  # zlib's window bits for a gzip header


class ReplyBody:
    """The pieces of one reply so far.

    Raises TeacherError, here and in :meth:`add`, for what cannot be unpacked or is too large.
    """

    def __init__(self, headers: Mapping[str, str]):
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise TeacherError(
                f"the endpoint's answer is packed as {encoding[:40]!a}, and gzip was asked for"
            )
        self._unpacker = zlib.decompressobj(wbits=_GZIP) if "gzip" in encoding else None
        self._content = bytearray()

    def add(self, piece: bytes) -> None:
        """Take the next bytes as they came over the wire."""
        room = MAX_REPLY_BYTES - len(self._content)
        if self._unpacker is not None:
            if self._unpacker.eof:
                return
            try:
                piece = self._unpacker.decompress(piece, room + 1)
            except zlib.error as error:
                raise TeacherError(f"the endpoint's answer cannot be unpacked: {error}") from None
        if len(piece) > room:
            raise TeacherError(
                f"the endpoint's answer is larger than {MAX_REPLY_BYTES >> 20} MiB; lower"
                " sampling.max_tokens, or set teacher.samples_per_request"
            )
        self._content += piece

    def text(self) -> str:
        """All of it as text; what is no UTF-8 is replaced."""
        return self._content.decode("utf-8-sig", "replace")
