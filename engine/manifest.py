"""Manifests: the list of what a parcel carried, with the proof of each entry.

A manifest is one JSON object a line, in the parcel's order, compressed with
zlib: path, kind (f, d, l), size (bytes), mtime_ns, mode, sha256, and link for
a symlink. Bytes of a name that are not UTF-8 stand as lone surrogates
(`\\udcXX`, PEP 383). The digest of a manifest is the SHA-256 of its lines.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from engine.agent.wire import LINK, Entry


class Manifest(NamedTuple):
    """A manifest as it is stored, and its digest."""

    blob: bytes
    digest: str


def write(proven: Iterable[tuple[Entry, str]]) -> Manifest:
    """The manifest of entries and their SHA-256 in hexadecimal."""
    lines = []
    for entry, digest in proven:
        record: dict[str, Any] = {
            "path": entry.path,
            "kind": entry.kind,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "mode": entry.mode,
            "sha256": digest,
        }
        if entry.kind == LINK:
            record["link"] = entry.link
        lines.append(json.dumps(record, separators=(",", ":")) + "\n")
    text = "".join(lines).encode("ascii")
    return Manifest(zlib.compress(text, 6), hashlib.sha256(text).hexdigest())


def read(blob: bytes) -> Iterator[dict[str, Any]]:
    """The records of a stored manifest; zlib.error or ValueError if it is damaged."""
    for line in zlib.decompress(blob).splitlines():
        yield json.loads(line)
