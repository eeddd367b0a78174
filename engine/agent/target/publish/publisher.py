"""The target tree: what it holds already, and putting into place what was proven."""

from __future__ import annotations

import errno
import os
import stat
from typing import Iterator

from engine.agent.tree import Tree, entry_from, entry_of
from engine.agent.wire import FILE, FOLDER, TWIN, AgentError, Entry, explain, show

ABSENT, SAME, DIFFERENT, OLDER, OTHER_KIND = "a", "s", "d", "o", "t"


def compare(
    target: Tree, entries: list[Entry], keep_both: bool, by_content: bool = False
) -> tuple[str, dict[str, str]]:
    """What the target holds where each entry would go, one letter each.

    a: nothing; s: the same (kind, size and mtime; link text); d: something
    different of a kind that could be replaced; o: likewise, and older; t:
    something in the way that is never replaced. With `by_content` files of one
    size count as the same: their digests will tell. With `keep_both` a copy
    under an earlier second name counts as the same; the second result maps
    indexes to such names.
    """
    states, others = [], {}
    for index, entry in enumerate(entries):
        state = _compare_one(target, entry, entry.path, by_content)
        if keep_both and state in (DIFFERENT, OLDER, OTHER_KIND) and entry.kind != FOLDER:
            for path in second_names(entry.path):
                second = _compare_one(target, entry, path, by_content)
                if second == SAME:
                    state, others[str(index)] = SAME, path
                if second in (SAME, ABSENT):
                    break
        states.append(state)
    return "".join(states), others


def _compare_one(target: Tree, entry: Entry, path: str, by_content: bool = False) -> str:
    try:
        folder, name = target.parent(path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind in (FILE, TWIN) and stat.S_ISREG(found.st_mode):
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


class Publisher:
    """Moves a staging tree into the target tree by renames."""

    def __init__(self, staging: Tree, target: Tree, policy: str) -> None:
        self._staging = staging
        self._target = target
        self._policy = policy
        self._both = policy == "keep-both"

    def publish(self, files: int) -> None:
        """Put everything in place; what forbids it is found before the first rename.

        `files` is how many files and links were proven: the staging tree must
        hold exactly these, whatever happened to it since.
        """
        try:
            found = count_files(self._staging)
            if found != files:
                raise AgentError(
                    "CHECKSUM_MISMATCH",
                    f"{files} files were proven, but {found} are in the staging folder",
                )
            for _ in self._ready():
                pass
            for entry, state in self._ready():
                path = self._free_name(entry) if state != ABSENT and self._both else entry.path
                self._rename(entry.path, path)
        finally:
            # Folders of either tree may have been renamed from under their descriptors.
            self._staging.forget()
            self._target.forget()

    def _ready(self) -> Iterator[tuple[Entry, str]]:
        """What is to be renamed, each with what the target has there; TARGET_EXISTS if it may not.

        A folder that the target has is entered instead.
        """
        waiting = [""]
        while waiting:
            above = waiting.pop()
            for name in sorted(os.listdir(self._staging.folder(above))):
                entry, state = self._state(f"{above}/{name}" if above else name)
                if entry.kind == FOLDER and state == SAME:
                    waiting.append(entry.path)
                elif state == ABSENT or (entry.kind != FOLDER and self._allowed(state)):
                    yield entry, state
                else:
                    raise AgentError("TARGET_EXISTS", f"{show(entry.path)} is in the way there")

    def _state(self, path: str) -> tuple[Entry, str]:
        folder, name = self._staging.parent(path)
        entry = entry_of(folder, name, path)
        if entry is None:
            raise AgentError(
                "AGENT_FAILED", f"{show(path)} in the staging folder is no kind we wrote"
            )
        return entry, _compare_one(self._target, entry, path)

    def _allowed(self, state: str) -> bool:
        if self._policy == "overwrite":
            return state != OTHER_KIND
        return self._both or (self._policy == "overwrite-older" and state == OLDER)

    def _free_name(self, entry: Entry) -> str:
        for path in second_names(entry.path):
            if _compare_one(self._target, entry, path) == ABSENT:
                return path
        raise AgentError("TARGET_EXISTS", f"{show(entry.path)} is there a thousand times already")

    def _rename(self, source: str, target: str) -> None:
        try:
            from_folder, from_name = self._staging.parent(source)
            to_folder, to_name = self._target.parent(target)
            os.rename(from_name, to_name, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        except OSError as error:
            raise explain(error, target) from error


def count_files(tree: Tree) -> int:
    """How many entries of a tree are not folders."""
    count, waiting = 0, [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(tree.folder(above)) as listing:
            for item in listing:
                if item.is_dir(follow_symlinks=False):
                    waiting.append(f"{above}/{item.name}" if above else item.name)
                else:
                    count += 1
    return count
