"""The folders that the target had before a transfer publishes: they keep their mode and ACL.

A source must not open a folder of the target to other users, nor close it to them.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress

from engine.agent.inodes import keeps
from engine.agent.target.ownership import open_plain
from engine.agent.tree import Tree
from engine.agent.wire import AgentError, show

#: In the staging folder: the paths, each with a NUL behind it; paths and inode numbers, in JSON.
_NOTE, _PLACED = "had", "placed"
_UNFINISHED = "had.new"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class FoldersBefore:
    """The folders that were there, as a note in the staging folder names them.

    The attempt that goes on after a killed one reads the note: the folders that the killed one
    has published are there, too, but wait for their mode.
    """

    def __init__(self, staging: int) -> None:
        self._staging = staging
        self._hashes: set[int] = set()
        #: The folders that this transfer puts there.
        self.placed = PlacedFolders(staging)

    def note(self, paths: list[str], target: Tree) -> None:
        """Take the note of an earlier attempt, or write these paths; before the first rename.

        Of these folders of the target, those of other users were there whatever the note says:
        they may have made them since that attempt.
        """
        try:
            fd = open_plain(self._staging, _NOTE, os.O_RDONLY)
        except FileNotFoundError:
            self._write(paths)
            return
        with open(fd, "rb") as note:
            for name in note.read().split(b"\0")[:-1]:
                self.add(os.fsdecode(name))
        for path in paths:
            if os.fstat(target.folder(path)).st_uid != os.geteuid():
                self.add(path)

    def _write(self, paths: list[str]) -> None:
        for path in paths:
            self.add(path)
        fd = open_plain(self._staging, _UNFINISHED, _NEW)
        with open(fd, "wb") as note:
            note.writelines(os.fsencode(path) + b"\0" for path in paths)
            note.flush()
            if paths:
                os.fsync(fd)
        os.rename(_UNFINISHED, _NOTE, src_dir_fd=self._staging, dst_dir_fd=self._staging)

    def add(self, path: str) -> None:
        """Count a folder as one that was there."""
        self._hashes.add(hash(path))

    def __contains__(self, path: str) -> bool:
        """True if the folder was there."""
        return hash(path) in self._hashes


class PlacedFolders:
    """The folders that were put where other users may rename them, by path and inode number.

    One of these users may put another folder in the place of one, which must not get its mode: a
    private folder of this user's, say. The attempt that goes on after a killed one reads the note.
    """

    def __init__(self, staging: int) -> None:
        self._staging, self._fd = staging, -1
        #: The numbers by the paths' hashes: there may be a million of them.
        self._numbers = {hash(path): number for path, number in self._noted()}
        self._asked = ("/", False)

    def note(self, path: str, number: int, target: Tree) -> None:
        """Note a folder with that inode number that is about to be put at that path."""
        above = path.rpartition("/")[0]
        if self._asked[0] != above:
            self._asked = above, _may_be_replaced(target, above)
        if self._asked[1]:
            self._add(path, number)

    def forget(self, path: str) -> None:
        """Note that a folder was not put there after all: one is there that others made."""
        if hash(path) in self._numbers:
            self._add(path, 0)

    def _add(self, path: str, number: int) -> None:
        self._numbers[hash(path)] = number
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._fd = open_plain(self._staging, _PLACED, flags)
        os.write(self._fd, (json.dumps([path, number]) + "\n").encode("ascii"))

    def close(self) -> None:
        """Close the note: an open file keeps a folder on some file systems."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def require(self, target: Tree, path: str) -> None:
        """Raise PERMISSION_DENIED if another folder is in this one's place, or of one above."""
        at = 0
        while self._numbers and at >= 0:
            at = path.find("/", at + 1)
            here = path if at < 0 else path[:at]
            number = self._numbers.get(hash(here), 0)
            if number and os.fstat(target.folder(here)).st_ino != number:
                raise AgentError(
                    "PERMISSION_DENIED",
                    f"{show(here)} was replaced by another folder at the target meanwhile, which "
                    "keeps its mode and time",
                )

    def _noted(self) -> list[tuple[str, int]]:
        try:
            fd = open_plain(self._staging, _PLACED, os.O_RDONLY)
        except FileNotFoundError:
            return []
        found = []
        with open(fd, "rb") as lines:
            for line in lines:
                with suppress(ValueError, TypeError, RecursionError):  # It was cut off.
                    path, number = json.loads(line)
                    if isinstance(path, str) and isinstance(number, int):
                        found.append((path, number))
        return found


def _may_be_replaced(target: Tree, path: str) -> bool:
    """True if others may rename what is in a folder, or one of the target's above it.

    False if its file system keeps no inode numbers: then nothing tells one folder from another.
    """
    folder = target.folder(path)
    if not keeps(os.fstat(folder).st_dev, folder, "."):
        return False
    parts = path.split("/") if path else []
    above = ("/".join(parts[:end]) for end in range(len(parts) + 1))
    return any(_is_others(os.fstat(target.folder(each))) for each in above)


def _is_others(folder: os.stat_result) -> bool:
    """True if others than root and this user may rename what this user has in a folder."""
    if folder.st_uid not in (0, os.geteuid()):
        return True
    return bool(folder.st_mode & 0o022) and not folder.st_mode & stat.S_ISVTX
