"""Manifests: the list of what a parcel carried, with the proof of each entry.

A manifest is one JSON object a line, in the parcel's order, compressed with
zlib: path, kind (f, d, l, h), size (bytes), mtime_ns, mode, sha256, and link
for a symlink or a further name of a file. Bytes of a name that are not UTF-8
stand as lone surrogates (`\\udcXX`, PEP 383). The digest of a manifest is the
SHA-256 of its lines.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from engine.agent.wire import LINK, TWIN, Entry


class Manifest(NamedTuple):
    """A manifest as it is stored, and its digest."""

    blob: bytes
    digest: str


def line(entry: Entry, digest: bytes) -> str:
    """One entry's line."""
    link = f',"link":{encode_basestring_ascii(entry.link)}' if entry.kind in (LINK, TWIN) else ""
    return (
        f'{{"path":{encode_basestring_ascii(entry.path)},"kind":"{entry.kind}",'
        f'"size":{entry.size},"mtime_ns":{entry.mtime_ns},"mode":{entry.mode},'
        f'"sha256":"{digest.hex()}"{link}}}\n'
    )


def write(proven: Iterable[tuple[Entry, bytes]]) -> Manifest:
    """The manifest of entries and their SHA-256."""
    text = "".join(line(entry, digest) for entry, digest in proven).encode("ascii")
    return Manifest(zlib.compress(text, 3), hashlib.sha256(text).hexdigest())


def read(blob: bytes) -> Iterator[dict[str, Any]]:
    """The records of a stored manifest; zlib.error or ValueError if it is damaged."""
    for text in zlib.decompress(blob).splitlines():
        yield json.loads(text)
