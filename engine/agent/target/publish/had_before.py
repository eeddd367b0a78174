"""The folders that the target had before a transfer publishes: they keep their mode and ACL.

A source must not open a folder of the target to other users, nor close it to them.
"""

from __future__ import annotations

import os

from engine.agent.target.ownership import open_plain
from engine.agent.tree import Tree

#: In the staging folder: the paths, each with a NUL behind it.
_NOTE = "had"
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
