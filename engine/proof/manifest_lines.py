"""The manifest of a delivery: what was proven, under the names that it has at the target."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from engine import errors
from engine.agent.tree import check_path
from engine.agent.wire import DIGEST, Entry, pack_entries, unpack_entries
from engine.parcels.spool import Block, Spool
from engine.proof import manifest
from engine.protocol.commands import HASH, STAT, UNPUBLISHED
from engine.protocol.digests import digest_at, require_digests
from engine.protocol.lists import entries_of, in_parts
from engine.session.session import Session


def lines(
    session: Session,
    spool: Spool,
    pairs: Iterable[tuple[Block, Block]],
    renamed: bool,
    archive: tuple[Entry, str] | None,
) -> Iterator[bytes]:
    """Yield the manifest's lines; `pairs` are lists of proven entries, and their digests.

    With `renamed` the target is asked for the second names that it chose. Of an `archive` (its
    entry and SHA-256) the first line is its own; those of what it holds name it.
    """
    inside = ""
    if archive:
        inside = archive[0].path
        yield manifest.line(archive[0], bytes.fromhex(archive[1])).encode("ascii")
    for block, digests in pairs:
        entries = list(map(session.aim.at_target, unpack_entries(spool.get(block))))
        names = _second_names(session, entries) if renamed else {}
        proof = spool.get(digests)
        for at, entry in enumerate(entries):
            entry = entry._replace(path=names.get(entry.path, entry.path))
            digest = proof[at * DIGEST : (at + 1) * DIGEST]
            yield manifest.line(entry, digest, inside).encode("ascii")


def archive_at(session: Session, path: str) -> tuple[Entry, str]:
    """Read an archive that an earlier attempt delivered; return its entry and its SHA-256."""
    entry = entries_of(session.target.request(STAT, path=path).entries)[0]
    found = require_digests(session.target.request(HASH, pack_entries([entry])), 1)
    return entry, digest_at(found.digests, 0).hex()


def _second_names(session: Session, entries: list[Entry]) -> dict[str, str]:
    """Ask the target for the second names of entries; raises AgentFailed for another place."""
    names: dict[str, str] = {}
    for part in in_parts(pack_entries(entries)):
        asked = {entry.path for entry in unpack_entries(part)}
        for path, second in session.target.request(UNPUBLISHED, part).names:
            check_path(second)
            if path not in asked or posixpath.dirname(second) != posixpath.dirname(path):
                raise errors.AgentFailed(
                    "protocol error at the target: a second name is of an entry that was not asked"
                )
            names[path] = second
    return names
