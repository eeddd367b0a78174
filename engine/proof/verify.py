"""Reading a place again, and holding it against a manifest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from engine import errors
from engine.agent.tree import check_path
from engine.agent.wire import (
    DIGEST,
    FILE,
    FOLDER,
    LINK,
    NO_DIGEST,
    TWIN,
    AgentError,
    Entry,
    pack_entries,
)
from engine.hub import Hub
from engine.links import Link
from engine.types import Endpoint, EntryFailure, display_path

#: Entries that are asked about at once.
BATCH = 1000
#: Differences that are listed one by one.
LISTED = 1000


@dataclass
class Verdict:
    """How a place compares with a manifest; the bytes are those that were read."""

    entries: int = 0
    bytes: int = 0
    different: int = 0
    differences: list[EntryFailure] = field(default_factory=list)

    def differs(self, path: str, code: str, sentence: str) -> None:
        """Note a difference."""
        self.different += 1
        if len(self.differences) < LISTED:
            self.differences.append(EntryFailure(display_path(path), code, sentence))


def verify(manifest: Path, at: Endpoint) -> Verdict:
    """Read every entry of a manifest at a place from the medium and compare its SHA-256.

    The manifest is JSON lines as `manifest.line` writes them, plain or
    compressed with zlib. What is there besides is not looked at. Raises
    BadRequest for a manifest that cannot be read, ConnectError as a transfer does.
    """
    verdict = Verdict()
    hub = Hub(lambda: None)
    try:
        records = _records(manifest)
        link = Link(hub, at)
        link.send_program()
        link.greet()
        found = link.ask("look", root=at.root, path=at.path)
        if found["kind"] != "folder":
            raise errors.BadRequest(f"{found['real']} is no folder")
        link.ask("open", root=at.root, path=at.path)
        while batch := list(islice(records, BATCH)):
            _compare(link, batch, verdict)
    finally:
        hub.close()
    return verdict


def _compare(link: Link, batch: list[dict[str, Any]], verdict: Verdict) -> None:
    entries = [_entry(record) for record in batch]
    digests = link.ask("hash", pack_entries(entries))["blob"]
    for index, (record, entry) in enumerate(zip(batch, entries, strict=True)):
        digest = digests[index * DIGEST : (index + 1) * DIGEST]
        verdict.entries += 1
        verdict.bytes += entry.size
        shown = display_path(entry.path)
        if digest == NO_DIGEST:
            verdict.differs(entry.path, "VANISHED", f"{shown} is not there, or cannot be read")
        elif digest.hex() != record["sha256"]:
            verdict.differs(entry.path, "CHECKSUM_MISMATCH", f"{shown} is not what was delivered")


def _entry(record: dict[str, Any]) -> Entry:
    # A further name of a file has its content; the manifest says only what it is a name of.
    kind = record["kind"]
    return Entry(check_path(record["path"]), kind, record["size"], 0, 0, 0)


def _records(manifest: Path) -> Iterator[dict[str, Any]]:
    try:
        with manifest.open("rb") as file:
            packed = file.read(1) == b"\x78"
        data = manifest.read_bytes()
        text = zlib.decompress(data) if packed else data
        for line in text.splitlines():
            record = json.loads(line)
            if record["kind"] not in (FILE, FOLDER, LINK, TWIN):
                raise ValueError
            check_path(record["path"])
            yield record
    except (OSError, ValueError, KeyError, TypeError, zlib.error, AgentError) as error:
        raise errors.BadRequest(f"{manifest} is no manifest of Ketter's: {error}") from error
