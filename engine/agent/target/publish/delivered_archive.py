"""Recognising a delivered archive, for a later attempt that goes on to remove the source.

By then the source is no longer whole, so that it cannot be compared with the archive. So the
journal says what the archive should hold, and stays until the source is removed. What it does hold
is read from the archive: another program of this account may have written both.
"""

from __future__ import annotations

import hashlib
import os
import stat
from itertools import chain

from engine.agent.digests import digest_file
from engine.agent.target.compare import second_names
from engine.agent.target.journal import Journal
from engine.agent.target.zip_reader import ZipReader
from engine.agent.tree import OPEN_FILE, Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import DIGEST, FILE, NO_DIGEST, AgentError, Entry, show, unpack_entries

if TYPE_CHECKING:
    from typing import Any, BinaryIO, Callable, Iterator

    #: Called with the number of bytes that were read.
    Read = Callable[[int], None]

_CHUNK = 1 << 20


def announce(journal: Journal, key: list[Any], digest: bytes) -> None:
    """Record durably that an archive takes its place now; `key` is name, size, keep-both."""
    journal.add({"delivered": key}, digest)
    journal.make_durable()


def recall(
    journal: Journal, staging: Tree, target: Tree, read: Read
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield messages on what a delivered archive of an earlier attempt holds.

    First `{"delivered": path}`, then `{"held": 0, "list": size}` with the entries that the journal
    names and the digests of what the archive holds of them: NO_DIGEST from the first on that it
    does not hold. Raises DELIVERED_GONE if the archive is gone or changed: the rest of the source
    is not enough to begin again.
    """
    at, lists = _last(journal)
    if at < 0:
        return
    body = journal.record(at)
    (name, size, both), digest = body["delivered"], body["blob"]
    if size_of(staging, name) >= 0:
        journal.add({"delivered": None})  # It had not taken its place: it is made again.
        return
    found = find(target, name, size, digest, both, read, medium=True)
    if not found:
        sentence = (
            f"the archive {show(name)} was delivered, and is now gone or changed at the target"
        )
        raise AgentError("DELIVERED_GONE", sentence)
    yield {"delivered": found}, b""
    folder, name = target.parent(found)
    with open(os.open(name, OPEN_FILE, dir_fd=folder), "rb") as archive:
        members = _Members(archive, read)
        for place in lists:
            body = journal.record(place)
            blob = body["blob"][: body["list"]]
            yield {"held": 0, "list": len(blob)}, blob + members.digests(unpack_entries(blob))


class _Members:
    """The members of an archive, one after the other."""

    def __init__(self, archive: BinaryIO, read: Read) -> None:
        self._archive, self._read = archive, read
        self._is_sound = True

    def digests(self, entries: list[Entry]) -> bytes:
        """The SHA-256 of the next members, which should be those."""
        found = bytearray()
        reader = ZipReader(self._exactly, entries)
        try:
            for index in range(len(entries) if self._is_sound else 0):
                if reader.member() != index:
                    break
                found += self._digest(entries[index].size)
                reader.member_done()
        except AgentError:
            self._is_sound = False
        self._is_sound = self._is_sound and len(found) == DIGEST * len(entries)
        return bytes(found) + NO_DIGEST * (len(entries) - len(found) // DIGEST)

    def _digest(self, size: int) -> bytes:
        digest = hashlib.sha256()
        while size:
            part = self._exactly(min(size, _CHUNK))
            digest.update(part)
            self._read(len(part))
            size -= len(part)
        return digest.digest()

    def _exactly(self, size: int) -> bytes:
        data = self._archive.read(size)
        if len(data) != size:
            raise AgentError("BAD_ARCHIVE", "the archive ends in the middle")
        return data


def was_published(journal: Journal, staged: Callable[[str], bool]) -> bool:
    """True if an archive has taken its place, so that no agent writes any more."""
    at, _ = _last(journal)
    return at >= 0 and not staged(journal.record(at)["delivered"][0])


def _last(journal: Journal) -> tuple[int, list[int]]:
    """Find the record of the last delivered archive (-1: none), and the lists of its content."""
    last = -1
    lists: list[int] = []
    of_last: list[int] = []
    for at, body in journal.records():
        if "start" in body:
            lists = []
        elif "inside" in body:
            lists.append(at)
        elif "delivered" in body:
            last, of_last = (at, lists) if body["delivered"] else (-1, [])
    return last, of_last


def find(
    target: Tree, name: str, size: int, digest: bytes, both: bool, read: Read, medium: bool
) -> str:
    """Return the name of a file with these bytes: `name`, or with `both` a second one; or ""."""
    for path in chain([name], second_names(name) if both else ()):
        there = size_of(target, path)
        if there < 0:
            return ""
        entry = Entry(path, FILE, size, 0, 0, 0)
        if there == size and digest_file(target, entry, read, medium) == digest:
            return path
    return ""


def size_of(tree: Tree, path: str) -> int:
    """The size of a file in bytes; 0 if it is no file, -1 if nothing is there."""
    try:
        folder, name = tree.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
