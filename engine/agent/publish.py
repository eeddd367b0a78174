"""What happens at the ends once the bytes are proven: compare, publish, finish, remove."""

from __future__ import annotations

import errno
import os
import stat
from typing import Iterator

from engine.agent.tree import Tree, entry_of, unchanged
from engine.agent.wire import FILE, FOLDER, LINK, AgentError, Entry, explain, show

ABSENT, SAME, DIFFERENT, OTHER_KIND = "a", "s", "d", "t"


def compare(target: Tree, entries: list[Entry], keep_both: bool) -> tuple[str, dict[str, str]]:
    """What the target holds where each entry would go, one letter each.

    a: nothing; s: the same (kind, size and mtime; link text); d: something
    different of a kind that could be replaced; t: something in the way that
    is never replaced. With `keep_both` a copy under an earlier second name
    counts as the same; the second result maps indexes to such names.
    """
    states, others = [], {}
    for index, entry in enumerate(entries):
        state = _compare_one(target, entry, entry.path)
        if keep_both and state in (DIFFERENT, OTHER_KIND) and entry.kind != FOLDER:
            for path in second_names(entry.path):
                second = _compare_one(target, entry, path)
                if second == SAME:
                    state, others[str(index)] = SAME, path
                if second in (SAME, ABSENT):
                    break
        states.append(state)
    return "".join(states), others


def _compare_one(target: Tree, entry: Entry, path: str) -> str:
    try:
        folder, name = target.parent(path)
        found = entry_of(folder, name, path)
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):  # A symlink on the way: ELOOP on macOS.
            return OTHER_KIND
        raise explain(error, path) from error
    if found is None or (found.kind == FOLDER) != (entry.kind == FOLDER):
        return OTHER_KIND
    if found.kind != entry.kind:
        return DIFFERENT
    if entry.kind == FILE:
        same = (found.size, found.mtime_ns) == (entry.size, entry.mtime_ns)
        return SAME if same else DIFFERENT
    if entry.kind == LINK:
        return SAME if found.link == entry.link else DIFFERENT
    return SAME


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
        return self._both or (self._policy == "overwrite" and state != OTHER_KIND)

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


def finish_folders(target: Tree, folders: list[Entry]) -> list[list[str]]:
    """Give folders their mode and time, in the order given (deepest first is the caller's duty).

    Returns those that would not take them, as path, code, sentence: a folder
    that was there before may belong to somebody else.
    """
    problems = []
    for entry in folders:
        try:
            fd = target.folder(entry.path)
            os.fchmod(fd, entry.mode & 0o777)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as error:
            problem = explain(error, entry.path)
            problems.append([entry.path, problem.code, str(problem)])
    return problems


def remove_entries(source: Tree, entries: list[Entry]) -> tuple[int, list[list[str]]]:
    """Remove files and links that are still what was scanned; return the count and what stayed.

    What stayed comes as path, code, sentence. An entry that is gone already counts as removed.
    """
    source.forget()  # A folder that was moved away since is no longer ours to empty.
    removed, kept = 0, []
    for entry in entries:
        try:
            folder, name = source.parent(entry.path)
            if unchanged(entry, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                os.unlink(name, dir_fd=folder)
            else:
                sentence = f"{show(entry.path)} was delivered, but stays: it changed since"
                kept.append([entry.path, "SOURCE_CHANGED", sentence])
                continue
        except FileNotFoundError:
            pass
        except OSError as error:
            problem = explain(error, entry.path)
            sentence = (
                f"{show(entry.path)} was delivered, but stays: {os.strerror(error.errno or 0)}"
            )
            kept.append([entry.path, problem.code, sentence])
            continue
        removed += 1
    return removed, kept


def remove_folders(source: Tree, folders: list[Entry]) -> list[list[str]]:
    """Remove the folders that are empty now, in the order given; deepest first.

    One that is in use, gone or of another kind by now stays as it is. Those that
    could not be removed are returned as path, code, sentence.
    """
    source.forget()
    kept = []
    for entry in folders:
        try:
            folder, name = source.parent(entry.path)
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                problem = explain(error, entry.path)
                kept.append([entry.path, problem.code, str(problem)])
    return kept
