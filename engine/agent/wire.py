"""Frames, entries and errors: what agents and the worker say to each other.

A frame is one type byte, a big-endian u32 length and that many bytes:

    J  a JSON object: a command (to the agent) or an answer (from it)
    D  payload of the parcel under way, at most MAX_DATA bytes
    E  end of one entry of a `file` parcel: a JSON object, {} or {"error": …}
    P  end of the parcel's payload

Names are `os.fsdecode` strings: bytes that are not UTF-8 travel as lone
surrogates, which JSON's ASCII form carries unharmed.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from typing import Any, BinaryIO, NamedTuple

#: Before its first answer an agent writes this, so that a shell's greeting can be told apart.
MAGIC = b"\n\x00KETTER AGENT 1\n"

HEADER = struct.Struct(">cI")
JSON, DATA, END_ENTRY, END_PARCEL = b"J", b"D", b"E", b"P"
MAX_JSON = 256 << 20
MAX_DATA = 4 << 20

FILE, FOLDER, LINK = "f", "d", "l"

#: The name of a transfer's staging folder, at the top of the target folder.
STAGING_PREFIX, STAGING_SUFFIX = ".ketter-", ".part"


class Entry(NamedTuple):
    """One thing in a tree; `path` is relative with `/`, `size` in bytes, times in ns."""

    path: str
    kind: str
    size: int
    mtime_ns: int
    mode: int
    ino: int
    link: str = ""


class AgentError(Exception):
    """Something a person or the worker can act on: a code of `engine.errors` and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EndOfStream(Exception):
    """The other side is gone."""


_CODES = {
    errno.ENOSPC: "NO_SPACE",
    errno.EDQUOT: "NO_SPACE",
    errno.EACCES: "PERMISSION_DENIED",
    errno.EPERM: "PERMISSION_DENIED",
    errno.EROFS: "PERMISSION_DENIED",
    errno.ENOENT: "VANISHED",
    errno.ELOOP: "PATH_OUTSIDE_ROOT",
    errno.ENAMETOOLONG: "NAME_TOO_LONG",
    errno.EILSEQ: "NAME_NOT_POSSIBLE",
    errno.EINVAL: "NAME_NOT_POSSIBLE",
}


def explain(error: OSError, path: str) -> AgentError:
    """An operating system's error as one of ours, naming the path for display."""
    code = _CODES.get(error.errno or 0, "IO_ERROR")
    return AgentError(code, f"{show(path)}: {os.strerror(error.errno or 0)}")


def show(path: str) -> str:
    """A path with everything that is not printable text escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_staging(name: str) -> bool:
    """Whether a name is that of a staging folder, which is never part of a tree."""
    return name.startswith(STAGING_PREFIX) and name.endswith(STAGING_SUFFIX)


def encode(kind: bytes, message: dict[str, Any]) -> bytes:
    """A JSON message as a whole frame."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return HEADER.pack(kind, len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object of a frame's body."""
    message = json.loads(body)
    if not isinstance(message, dict):
        raise AgentError("AGENT_FAILED", "a frame holds no JSON object")
    return message


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """That many bytes, or EndOfStream."""
    data = stream.read(size)
    while data is not None and len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    if not data or len(data) < size:
        if size == 0:
            return b""
        raise EndOfStream
    return data


def read_header(stream: BinaryIO) -> tuple[bytes, int]:
    """The next frame's type and length, checked against the limits."""
    kind, size = HEADER.unpack(read_exactly(stream, HEADER.size))
    limit = MAX_DATA if kind == DATA else MAX_JSON
    if kind not in (JSON, DATA, END_ENTRY, END_PARCEL) or size > limit:
        raise AgentError("AGENT_FAILED", "the stream between the agents is not in step")
    return kind, size


def read_frame(stream: BinaryIO) -> tuple[bytes, bytes]:
    """The next frame's type and body."""
    kind, size = read_header(stream)
    return kind, read_exactly(stream, size)


def write_all(fd: int, *pieces: Any) -> None:
    """All bytes of all pieces, however many calls it takes."""
    pending = [memoryview(piece) for piece in pieces if len(piece)]
    while pending:
        written = os.writev(fd, pending[:64])
        while pending and written >= len(pending[0]):
            written -= len(pending.pop(0))
        if written:
            pending[0] = pending[0][written:]
