"""Frames, entries and errors: the protocol between agents, and between worker and agents.

A frame is one type byte, a big-endian u32 length and that many bytes:

    J  a message: a command (to the agent) or a reply (from it)
    H  the head of a parcel: a message whose blob is the list of its entries
    D  payload of the parcel under way, at most MAX_DATA bytes
    M  a mark inside a large file: a message whose blob is the digest so far
    E  end of one entry of a `file` parcel: a message, {} or {"error": …}
    P  end of the parcel's payload: a message whose blob is the sender's digests

A message is one JSON object, and after a NUL a blob of bytes if there is one;
decoded, the blob stands under "blob". Commands begin with a seal (`Seal`).

Names are `os.fsdecode` strings: bytes that are not UTF-8 travel as lone
surrogates, which JSON's ASCII form carries unharmed. Lists of entries travel
as columns (`pack_entries`): five times cheaper than JSON, and they are long.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
from _blake2 import blake2b  # Not hashlib: that loads OpenSSL, which takes 5 ms.
from array import array

from engine.agent.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Iterable, Sequence

#: An agent writes this before its first message: what comes earlier is a shell's greeting.
MAGIC = b"\n\x00KETTER AGENT 2\n"

HEADER = struct.Struct(">cI")
JSON, HEAD, DATA, MARK, END_ENTRY, END_PARCEL = b"J", b"H", b"D", b"M", b"E", b"P"
_KINDS = (JSON, HEAD, DATA, MARK, END_ENTRY, END_PARCEL)
#: The most bytes of a message. A list of entries has LIST_BYTES at most, and one entry more; a
#: reader has a message twice in memory, so the rest of it must not be large.
MAX_MESSAGE = 24 << 20
MAX_DATA = 4 << 20
#: The most bytes of JSON in a frame that comes with payload.
MAX_HEAD = 1 << 20
#: The most bytes of a path, and of a symlink's text: more than any system allows.
MAX_PATH, MAX_LINK = 32 << 10, 64 << 10
#: The most entries of a list from an agent, and the characters of paths, links and attributes at
#: which a list ends: UTF-8 has up to 4 bytes for each.
MAX_ENTRIES, LIST_BYTES = 10_000, 4 << 20
#: The characters of paths and sentences about entries that fail, in one message: JSON has up to 12
#: bytes for each.
REPORT_WEIGHT = 256 << 10
#: Stands before each piece of a shared stream, then the piece's length (u16). No text has it.
PIECE = b"\0KETTER\0"
#: The most bytes of a piece: with its head they are in the pipe at once, or not at all (PIPE_BUF).
MAX_PIECE = 4096 - len(PIECE) - 2
#: The streams that another program writes to, too: a job that the login's shell has left behind.
shared: set[int] = set()
#: The most pieces that one system call takes (IOV_MAX).
_MOST_PIECES = 1000

#: The characters of a sentence about an entry, at most; the errors of a parcel with so long ones.
_SENTENCE, _LONG_SENTENCES = 600, 200

#: Kinds of entries: a file, a folder, a symlink, another name of a file (a hard link).
FILE, FOLDER, LINK, HARD_LINK = "f", "d", "l", "h"

#: Bytes of a digest (SHA-256); a missing one is as many zeros.
DIGEST = 32
NO_DIGEST = bytes(DIGEST)

#: States of a place at the target: nothing there, the same, another content, an older file, another
#: kind, a folder of the same time, a file of the same size where no times are kept, not to be seen.
ABSENT, SAME, DIFFERENT, OLDER, OTHER_KIND, UNCHANGED = "a", "s", "d", "o", "t", "u"
ALIKE, HIDDEN = "c", "x"

#: What a transfer's staging folder, at the top of the target folder, has around its id.
STAGING_PREFIX, STAGING_SUFFIX = ".ketter-", ".part"


class Entry(NamedTuple):
    """One entry of a tree; `path` is relative with `/`, `size` in bytes, times in ns.

    `link` is a symlink's target, or the path of the file that a HARD_LINK also names. `meta` are
    the attributes as `xattrs.read` packs them.
    """

    path: str
    kind: str
    size: int
    mtime_ns: int
    mode: int
    ino: int
    link: str = ""
    meta: bytes = b""


class AgentError(Exception):
    """An error that a person or the worker can act on: a code of `engine.errors`, a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EndOfStream(Exception):
    """The other end of a pipe was closed."""


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
    **dict.fromkeys(
        (errno.EIO, errno.ENXIO, errno.ENODEV, getattr(errno, "EUCLEAN", errno.EIO)), "DISK_ERROR"
    ),
    # Errors that pass by themselves, or when a network file system comes back.
    **dict.fromkeys(
        (
            errno.EAGAIN,
            errno.ENOMEM,
            errno.EMFILE,
            errno.ENFILE,
            errno.ENOBUFS,
            errno.ESTALE,
            errno.ETIMEDOUT,
            errno.ENOTCONN,
            errno.ECONNRESET,
            errno.ECONNABORTED,
            errno.EHOSTDOWN,
            errno.EHOSTUNREACH,
            errno.ENETDOWN,
            errno.ENETUNREACH,
        ),
        "HOST_TROUBLE",
    ),
}


def explain(error: OSError, path: str) -> AgentError:
    """Convert an error of the operating system to an AgentError that names the path."""
    code = _CODES.get(error.errno or 0, "IO_ERROR")
    return AgentError(code, f"{show(path)}: {os.strerror(error.errno or 0)}")


def show(path: str) -> str:
    """A path for display, with all but printable text escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(errors: dict[str, list[str]], sentence: str) -> str:
    """The sentence for one more error of a parcel: cut if the parcel has many errors already.

    The worker knows the entry's path; the report of a parcel must stay below 4 MiB of JSON.
    """
    most = REPORT_WEIGHT // MAX_ENTRIES if len(errors) > _LONG_SENTENCES else _SENTENCE
    return sentence[-most:]


def staging_name(transfer_id: str) -> str:
    """The name of a transfer's staging folder."""
    return f"{STAGING_PREFIX}{transfer_id}{STAGING_SUFFIX}"


def is_staging(name: str) -> bool:
    """True if a name is that of a staging folder, which is never part of a tree."""
    return name.startswith(STAGING_PREFIX) and name.endswith(STAGING_SUFFIX)


def message(body: dict[str, Any], blob: bytes = b"") -> bytes:
    """Encode a message as it stands inside a frame."""
    text = json.dumps(body, separators=(",", ":")).encode("ascii")
    return b"\0".join((text, blob)) if blob else text


def encode(kind: bytes, body: dict[str, Any], blob: bytes = b"") -> bytes:
    """Encode a message as a whole frame."""
    data = message(body, blob)
    return HEADER.pack(kind, len(data)) + data


def decode(data: bytes, most: int = MAX_MESSAGE) -> dict[str, Any]:
    """Decode a message with at most `most` bytes of JSON; its blob stands under "blob"."""
    text, _, blob = data.partition(b"\0")
    try:
        body = json.loads(text) if len(text) <= most else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise AgentError(
            "AGENT_FAILED", "protocol error: a frame holds no JSON object, or too large a one"
        )
    body["blob"] = blob
    return body


class Seal:
    """Distinguishes the worker's commands from other bytes in the same pipe.

    A receiver's commands and its payload come through one pipe, and the payload is the other
    host's. Without the worker's key (BLAKE2b, keyed, numbered) that host can send payload only.
    """

    SIZE = 16

    def __init__(self, token: str) -> None:
        self._key = bytes.fromhex(token)
        self._number = 0

    def frame(self, body: dict[str, Any], blob: bytes = b"") -> bytes:
        """Encode a command as a sealed frame."""
        data = message(body, blob)
        return HEADER.pack(JSON, self.SIZE + len(data)) + self._sign(data) + data

    def open(self, data: bytes) -> dict[str, Any]:
        """Decode a command; raises AGENT_FAILED if it is not the next one that the worker sent."""
        sealed, data = data[: self.SIZE], data[self.SIZE :]
        if sealed != self._sign(data):
            raise AgentError("AGENT_FAILED", "a command came that the worker did not send")
        return decode(data)

    def _sign(self, data: bytes) -> bytes:
        self._number += 1
        salt = self._number.to_bytes(16, "big")
        return blake2b(data, digest_size=self.SIZE, key=self._key, salt=salt).digest()


#: The number of entries, and the bytes of paths, of links and of attributes.
_LIST = struct.Struct("<4I")
_COLUMNS = (("q", "size"), ("q", "mtime_ns"), ("I", "mode"), ("Q", "ino"))


def pack_entries(entries: Iterable[Entry]) -> bytes:
    """Pack entries as columns: kinds, sizes, times, modes, inodes, paths, links, attributes.

    Little-endian; texts are joined by NUL. Links and attributes are left out if no entry has any.
    """
    rows = list(entries)
    if not rows:
        return _LIST.pack(0, 0, 0, 0)
    paths, kinds, sizes, times, modes, inos, links, metas = zip(*rows)
    path_text = "\0".join(paths).encode("utf-8", "surrogateescape")
    link_text = "\0".join(links).encode("utf-8", "surrogateescape") if any(links) else b""
    meta_data = b"".join(metas)
    numbers = (sizes, times, modes, inos)
    pieces = [
        _LIST.pack(len(rows), len(path_text), len(link_text), len(meta_data)),
        "".join(kinds).encode("ascii"),
        *(_column(form, values) for (form, _), values in zip(_COLUMNS, numbers)),
        path_text,
        link_text,
    ]
    if meta_data:
        pieces += [_column("I", map(len, metas)), meta_data]
    return b"".join(pieces)


def unpack_entries(data: bytes, only: str = "") -> list[Entry]:
    """Unpack a list (`only` one kind of entry); raises AGENT_FAILED if it is damaged."""
    try:
        return _unpack(data, only)
    except (ValueError, struct.error, IndexError) as error:
        raise AgentError("AGENT_FAILED", "protocol error: a list of entries is damaged") from error


def count_of(data: bytes) -> int:
    """The number of entries of a list that `unpack_entries` accepted."""
    return int.from_bytes(data[:4], "little")


def kinds_of(data: bytes) -> str:
    """The kinds of the entries of a list that `unpack_entries` accepted, a letter each."""
    count = count_of(data)
    return data[_LIST.size : _LIST.size + count].decode("ascii")


def list_digest(data: bytes) -> str:
    """A digest that names a list of entries: the worker compares it with its own list's."""
    return blake2b(data, digest_size=16).hexdigest()


def _unpack(data: bytes, only: str) -> list[Entry]:
    count, path_size, link_size, meta_size = _LIST.unpack_from(data)
    at = _LIST.size
    if count == 0:
        _require(len(data) == at)
        return []
    kinds = data[at : at + count].decode("ascii")
    _require(len(kinds) == count and not kinds.strip(FILE + FOLDER + LINK + HARD_LINK))
    at += count
    columns = []
    for form, _ in _COLUMNS:
        column, at = _read_column(form, count, data, at)
        columns.append(column)
    paths = data[at : at + path_size].decode("utf-8", "surrogateescape").split("\0")
    at += path_size
    links = [""] * count
    if link_size:
        links = data[at : at + link_size].decode("utf-8", "surrogateescape").split("\0")
        at += link_size
    metas = [b""] * count
    if meta_size:
        lengths, at = _read_column("I", count, data, at)
        _require(sum(lengths) == meta_size)
        for index, length in enumerate(lengths):
            metas[index] = data[at : at + length]
            at += length
    _require(at == len(data) and len(paths) == count and len(links) == count)
    sizes, times, modes, inos = columns
    _require(min(sizes) >= 0 and max(modes) <= 0o7777)
    rows = zip(paths, kinds, sizes, times, modes, inos, links, metas)
    if only:  # To make the rest would take most of the time.
        return [Entry._make(row) for row in rows if row[1] == only]
    return list(map(Entry._make, rows))


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError


def _column(form: str, values: Iterable[int]) -> bytes:
    column = array(form, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _read_column(form: str, count: int, data: bytes, at: int) -> tuple[array[int], int]:
    column = array(form)
    end = at + count * column.itemsize
    column.frombytes(data[at:end])
    _require(len(column) == count)
    if sys.byteorder == "big":
        column.byteswap()
    return column, end


def check_header(kind: bytes, size: int) -> tuple[bytes, int]:
    """Return a frame's type and length; raises AGENT_FAILED if they exceed the limits."""
    if kind not in _KINDS or size > (MAX_DATA if kind == DATA else MAX_MESSAGE):
        raise AgentError(
            "AGENT_FAILED", f"protocol error: a frame of type {kind!r} and {size} bytes came"
        )
    return kind, size


def write_all(fd: int, *pieces: Any) -> None:
    """Write all bytes of all pieces, in as many calls as that takes."""
    if fd in shared:
        for piece in cut(b"".join(pieces)):
            os.write(fd, piece)
        return
    for at in range(0, len(pieces), _MOST_PIECES):
        _write_some(fd, pieces[at : at + _MOST_PIECES])


def cut(data: bytes) -> Iterable[bytes]:
    """Cut data for a shared stream, so that a reader finds it between what others write there."""
    for at in range(0, len(data), MAX_PIECE):
        part = data[at : at + MAX_PIECE]
        yield PIECE + len(part).to_bytes(2, "big") + part


def first_piece(raw: bytearray) -> bytes:
    """Take the first piece out of what came of a shared stream; b"" if none is complete."""
    at = raw.find(PIECE)
    # Without one, its beginning may be at the end.
    del raw[: at if at >= 0 else max(0, len(raw) - len(PIECE))]
    start = len(PIECE) + 2
    end = start + int.from_bytes(raw[len(PIECE) : start], "big")
    if at < 0 or len(raw) < max(start, end):
        return b""
    piece = bytes(raw[start:end])
    del raw[:end]
    return piece


def _write_some(fd: int, pieces: Sequence[Any]) -> None:
    while pieces:
        written = os.writev(fd, pieces)
        whole = 0
        for piece in pieces:
            if written < len(piece):
                break
            written -= len(piece)
            whole += 1
        pieces = pieces[whole:]
        if written:
            pieces = [memoryview(pieces[0])[written:], *pieces[1:]]
