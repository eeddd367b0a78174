"""An archive that has been delivered, for a later attempt that goes on with removing the source.

By then the source is no longer whole, so that nothing could be compared with
it. So the journal says what the archive holds, and stays until the source is removed.
"""

from __future__ import annotations

import os
import stat
from itertools import chain
from typing import Any, Callable, Iterator

from engine.agent.journal import Journal
from engine.agent.publish import second_names
from engine.agent.stage import digest_file
from engine.agent.tree import Tree
from engine.agent.wire import FILE, AgentError, Entry, show

#: Told of bytes that were read.
Read = Callable[[int], None]


def announce(journal: Journal, key: list[Any], digest: bytes) -> None:
    """Put down for good that an archive (name, size, if beside another) takes its place now."""
    journal.add({"delivered": key}, digest)
    journal.make_durable()


def recall(
    journal: Journal, staging: Tree, target: Tree, read: Read
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What an earlier attempt's archive holds, if that was delivered, to be told.

    First `{"delivered": path}`, then `{"held": 0, "list": size}` with entries and digests.
    DELIVERED_GONE if it is not there any more as it was: what is left of the source
    is then no whole to begin anew with.
    """
    at, lists = _last(journal)
    if at < 0:
        return
    body = journal.record(at)
    (name, size, both), digest = body["delivered"], body["blob"]
    if size_of(staging, name) >= 0:
        journal.add({"delivered": None})  # It had not taken its place; it is made anew.
        return
    found = find(target, name, size, digest, both, read, medium=True)
    if not found:
        sentence = f"the archive {show(name)} was delivered, and is not there any more as it was"
        raise AgentError("DELIVERED_GONE", sentence)
    yield {"delivered": found}, b""
    for place in lists:
        body = journal.record(place)
        yield {"held": 0, "list": body["list"]}, body["blob"]


def has_left(journal: Journal, staged: Callable[[str], bool]) -> bool:
    """Whether an archive has taken its place, so that nothing is written any more."""
    at, _ = _last(journal)
    return at >= 0 and not staged(journal.record(at)["delivered"][0])


def _last(journal: Journal) -> tuple[int, list[int]]:
    """Where the last archive is put down, -1 if none is, and where the lists of what it holds."""
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
    """Where a file of these bytes stands under that name, or with `both` a further one; or ""."""
    for path in chain([name], second_names(name) if both else ()):
        there = size_of(target, path)
        if there < 0:
            return ""
        entry = Entry(path, FILE, size, 0, 0, 0)
        if there == size and digest_file(target, entry, read, medium) == digest:
            return path
    return ""


def size_of(tree: Tree, path: str) -> int:
    """The size of what stands there, 0 if it is no file; less if nothing does."""
    try:
        folder, name = tree.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
