"""Reads a manifest from a file, which may hold anything: a person or another program wrote it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engine import errors, named_files
from engine.agent.tree import check_path
from engine.agent.typed import NamedTuple
from engine.agent.wire import FILE, FOLDER, HARD_LINK, LINK, MAX_PATH, AgentError, show

#: The most bytes of a line: a path and a link with each of their bytes escaped in JSON.
MOST_OF_A_LINE = 1 << 20
_CHUNK = 64 << 10
#: What a stream of zlib begins with.
_ZLIB = b"\x78"
_HEX = frozenset("0123456789abcdef")


class Listed(NamedTuple):
    """One entry of a manifest; `size` in bytes, `sha256` in hexadecimal digits.

    `archive` is the archive that holds it, by its path; "" if the entry stands there itself.
    """

    path: str
    kind: str
    size: int
    sha256: str
    archive: str = ""


def read(manifest: Path) -> Iterator[Listed]:
    """Yield the entries of a manifest, plain or compressed with zlib, a line each.

    Memory: one line. Raises BadRequest if the file cannot be read, is no plain file, or no
    manifest.
    """
    try:
        with named_files.read(str(manifest)) as file:
            number = 0
            for number, line in enumerate(_lines(file), 1):
                try:
                    yield _entry(json.loads(line))
                except (ValueError, RecursionError, AgentError) as error:
                    raise ValueError(f"line {number}: {error!s:.200}") from None
            if not number:
                raise ValueError("it names no entry, so there is nothing to compare")
    except (OSError, ValueError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.BadRequest(f"{manifest} is not a Ketter manifest: {reason}") from error


def _entry(record: Any) -> Listed:
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    path, kind, size, sha256, archive = map(record.get, Listed._fields)
    if not isinstance(path, str) or not path or len(os.fsencode(path)) > MAX_PATH:
        raise ValueError("no path, or too long a one")
    check_path(path)
    if kind not in (FILE, FOLDER, LINK, HARD_LINK):
        raise ValueError(f"{show(path)} has no kind that Ketter knows")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
        raise ValueError(f"{show(path)} has no size in bytes")
    if not isinstance(sha256, str) or len(sha256) != 64 or not _HEX.issuperset(sha256):
        raise ValueError(f"{show(path)} has no SHA-256")
    if not (archive is None or isinstance(archive, str)):
        raise ValueError(f"{show(path)} has no name of an archive")
    return Listed(path, kind, size, sha256, archive or "")


def _lines(file: BinaryIO) -> Iterator[bytes]:
    rest = b""
    for part in _plain(file):
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
        if len(rest) > MOST_OF_A_LINE:
            raise ValueError(f"a line has more than {MOST_OF_A_LINE:,} bytes")
    if rest:
        yield rest


def _plain(file: BinaryIO) -> Iterator[bytes]:
    """Yield the text in pieces, expanded if it is compressed."""
    data = file.read(_CHUNK)
    if not data.startswith(_ZLIB):
        while data:
            yield data
            data = file.read(_CHUNK)
        return
    stream = zlib.decompressobj()
    while data:
        yield stream.decompress(data, _CHUNK)
        data = stream.unconsumed_tail or (file.read(_CHUNK) if not stream.eof else b"")
    if not stream.eof or stream.unused_data:
        raise ValueError("its compressed data is incomplete, or more data follows it")
