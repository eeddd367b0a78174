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
from engine.agent.wire import FILE, Entry

#: Told of bytes that were read.
Read = Callable[[int], None]


def announce(journal: Journal, attempt: int, key: list[Any], digest: bytes) -> None:
    """Put down for good that an archive (name, size, if beside another) takes its place now."""
    journal.add({"delivered": key, "attempt": attempt}, digest)
    journal.make_durable()


def recall(
    journal: Journal, staging: Tree, target: Tree, read: Read
) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What an earlier attempt's archive holds, if it is delivered and still whole, to be told.

    First `{"delivered": path}`, then `{"held": 0, "list": size}` with entries and digests.
    """
    places = [at for at, body in journal.records() if "delivered" in body]
    if not places:
        return
    body = journal.record(places[-1])
    (name, size, both), digest = body["delivered"], body["blob"]
    if size_of(staging, name) >= 0:
        return  # It had not taken its place yet.
    found = find(target, name, size, digest, both, read, medium=True)
    if not found:
        return
    yield {"delivered": found}, b""
    inside = body["attempt"]
    for at in [at for at, body in journal.records() if body.get("inside") == inside]:
        body = journal.record(at)
        yield {"held": 0, "list": body["list"]}, body["blob"]


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
