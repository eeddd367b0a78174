"""Compares entries of the source with what the target tree holds in their places.

A module of its own with few imports: where nothing is sent the target's agent loads no more.
"""

from __future__ import annotations

import errno
import os
import stat

from engine.agent import write_access
from engine.agent.context import Context
from engine.agent.tree import Tree, entry_from
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    ABSENT,
    DIFFERENT,
    FILE,
    FOLDER,
    HARD_LINK,
    OLDER,
    OTHER_KIND,
    SAME,
    UNCHANGED,
    AgentError,
    Entry,
    explain,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any, Iterator


class Comparison:
    """The command of a target that changes nothing."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def do_compare(self, keep_both: bool, by_content: bool, blob: bytes) -> dict[str, Any]:
        """Compare entries with what the target holds in their places; see `compare`."""
        write_access.recover(self._context.tree.fd)
        states, others = compare(self._context.tree, unpack_entries(blob), keep_both, by_content)
        return {"states": states, "others": others}


def compare(
    target: Tree, entries: list[Entry], keep_both: bool, by_content: bool = False
) -> tuple[str, dict[str, str]]:
    """Compare each entry with what the target holds in its place; return one letter for each.

    a: nothing is there, or this user may not look. s: the same (kind, size and mtime; link text).
    d: something different, of a kind that may be replaced. o: as d, and older. t: something that
    is never replaced. u: a folder that needs nothing, for its time is the same, and it keeps its
    mode. With `by_content` files of one size count as the same: their digests will decide. With
    `keep_both` a copy under an earlier second name counts as the same; the second result maps
    indexes to such names.
    """
    states, others = [], {}
    for index, entry in enumerate(entries):
        try:
            state = compare_one(target, entry, entry.path, by_content)
        except AgentError as error:
            if error.code != "PERMISSION_DENIED":
                raise
            state = ABSENT  # Publishing opens the folder if it is this user's, or names the entry.
        if keep_both and state in (DIFFERENT, OLDER, OTHER_KIND) and entry.kind != FOLDER:
            for path in second_names(entry.path):
                second = compare_one(target, entry, path, by_content)
                if second == SAME:
                    state, others[str(index)] = SAME, path
                if second in (SAME, ABSENT):
                    break
        if state == SAME and entry.kind == FOLDER and _is_unchanged(target, entry):
            state = UNCHANGED
        states.append(state)
    return "".join(states), others


def _is_unchanged(target: Tree, entry: Entry) -> bool:
    """True if the target's folder has the entry's time, and no killed agent has left it open."""
    folder, name = target.parent(entry.path)
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return found.st_mtime_ns == entry.mtime_ns and not write_access.is_left_open(found)


def compare_one(target: Tree, entry: Entry, path: str, by_content: bool = False) -> str:
    try:
        folder, name = target.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind in (FILE, HARD_LINK) and stat.S_ISREG(found.st_mode):
            alike = found.st_size == entry.size
            if alike and (found.st_mtime_ns == entry.mtime_ns or by_content):
                return SAME
            return OLDER if found.st_mtime_ns < entry.mtime_ns else DIFFERENT
        there = entry_from(found, folder, name, path)
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):  # A symlink on the way: ELOOP on macOS.
            return OTHER_KIND
        raise explain(error, path) from error
    if there is None or (there.kind == FOLDER) != (entry.kind == FOLDER):
        return OTHER_KIND
    if there.kind == entry.kind and (entry.kind == FOLDER or there.link == entry.link):
        return SAME
    return OLDER if there.mtime_ns < entry.mtime_ns else DIFFERENT


def second_names(path: str) -> Iterator[str]:
    """The names a second copy may take: `a (2).mov`, `a (3).mov` …"""
    above, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    room = 255 - len(os.fsencode(f" (999){dot}{ending}"))
    stem = os.fsdecode(os.fsencode(stem)[:room])
    return (f"{above}{slash}{stem} ({number}){dot}{ending}" for number in range(2, 1000))
