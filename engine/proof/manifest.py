"""Manifests: lists of the entries that a parcel carried, with the proof of each.

A manifest has one JSON object per line, in the parcel's order, and is compressed with
zlib. An object has path, kind (f, d, l, h), size (bytes), mtime_ns, mode, sha256, and link
for a symlink or a further name of a file. The command line's `--manifest` also has the
archive that holds an entry (`archive`), and the archive's own line before. Bytes of a name that
are not UTF-8 are lone surrogates (`\\udcXX`, PEP 383). The digest of a manifest is the
SHA-256 of its lines.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias

from engine.agent.typed import NamedTuple
from engine.agent.wire import HARD_LINK, LINK, Entry

#: Entries, and their SHA-256 in one piece.
Entries: TypeAlias = tuple[list[Entry], bytes]

_FIELDS = ("path", "kind", "size", "mtime_ns", "mode")


class Manifest(NamedTuple):
    """A manifest as it is stored, and its digest."""

    blob: bytes
    digest: str


def line(entry: Entry, digest: bytes, archive: str = "") -> str:
    """Return one entry's line; `archive` is the path of the archive that holds it, if one does."""
    link = (
        f',"link":{encode_basestring_ascii(entry.link)}' if entry.kind in (LINK, HARD_LINK) else ""
    )
    if archive:
        link += f',"archive":{encode_basestring_ascii(archive)}'
    return (
        f'{{"path":{encode_basestring_ascii(entry.path)},"kind":"{entry.kind}",'
        f'"size":{entry.size},"mtime_ns":{entry.mtime_ns},"mode":{entry.mode},'
        f'"sha256":"{digest.hex()}"{link}}}\n'
    )


def write(proven: Iterable[tuple[Entry, bytes]]) -> Manifest:
    """Return the manifest of entries and their SHA-256."""
    text = "".join(line(entry, digest) for entry, digest in proven).encode("ascii")
    return Manifest(zlib.compress(text, 3), hashlib.sha256(text).hexdigest())


def entries_of(blob: bytes) -> Entries:
    """Return the entries of a stored manifest, and their SHA-256; raises as `read` does.

    A manifest has no inodes and no attributes.
    """
    entries: list[Entry] = []
    digests = bytearray()
    for record in read(blob):
        try:
            path, kind, size, mtime_ns, mode = (record[name] for name in _FIELDS)
            digests += bytes.fromhex(record["sha256"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a line of a manifest lacks {error}") from error
        entries.append(Entry(path, kind, size, mtime_ns, mode, 0, record.get("link", "")))
    return entries, bytes(digests)


def read(blob: bytes) -> Iterator[dict[str, Any]]:
    """Yield the records of a stored manifest; raises zlib.error or ValueError if it is damaged."""
    for text in zlib.decompress(blob).splitlines():
        yield json.loads(text)
