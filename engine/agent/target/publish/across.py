"""Publishing into a folder of the target that lies on another file system than the staging folder.

A rename cannot go there: a disk or a share is mounted below the target, or it is a subvolume, or a
project with a quota of its own. So an entry is copied beside its place, read again, and renamed.
A note in the staging folder names the folders with such copies, for the agent that cleans up
after a killed one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress

from engine.agent import xattrs
from engine.agent.digests import UNKNOWN, digest_file, make_durable
from engine.agent.target.ownership import open_plain
from engine.agent.target.staged_files import NEW_FILE, write_whole
from engine.agent.tree import OPEN_FILE, Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    FILE,
    AgentError,
    Entry,
    is_staging,
    show,
    staging_name,
)

if TYPE_CHECKING:
    from typing import Callable, Iterator

_NOTE = "copies"
_CHUNK = 1 << 20


def copy_name(transfer_id: str) -> str:
    """The name of a copy before it takes its place; no scan takes it for an entry."""
    return staging_name(f"{transfer_id}.copy")


class Across:
    """Puts entries of a staging tree into place where no rename goes."""

    def __init__(
        self, staging: int, transfer_id: str, medium: bool, read: Callable[[int], None]
    ) -> None:
        self._note_in, self._name = staging, copy_name(transfer_id)
        self._medium, self._read = medium, read
        self._noted: set[str] = set()
        #: The inode of the last copy.
        self._number = 0
        #: Files with several names, by inode: the first place of each, and its own inode there.
        self._twins: dict[int, tuple[str, int]] = {}
        #: A folder of each file system that was written to, by device.
        self._written: dict[int, int] = {}

    def copy(self, staging: Tree, source: str, target: Tree, place: str) -> tuple[str, int]:
        """Copy an entry of the staging tree beside its place; return the copy's name and folder."""
        folder, name = staging.parent(source)
        beside, _ = target.parent(place)
        above = place.rpartition("/")[0]
        self._announce(above)
        discard_copy(beside, self._name)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        try:
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(name, dir_fd=folder), self._name, dir_fd=beside)
                with suppress(OSError):  # Not every file system keeps the time of a symlink.
                    times = (found.st_mtime_ns, found.st_mtime_ns)
                    os.utime(self._name, ns=times, dir_fd=beside, follow_symlinks=False)
            elif not self._link(target, found, beside):
                self._copy_file(folder, name, beside, found)
                self._verify(target, f"{above}/{self._name}" if above else self._name, place)
                if found.st_nlink > 1:
                    self._twins[found.st_ino] = place, self._number
        except BaseException:
            discard_copy(beside, self._name)
            raise
        device = os.fstat(beside).st_dev
        if device not in self._written:
            self._written[device] = os.dup(beside)
        return self._name, beside

    def _link(self, target: Tree, found: os.stat_result, beside: int) -> bool:
        """Give a file of several names one more, if another one is in place already."""
        if found.st_ino not in self._twins:
            return False
        place, number = self._twins[found.st_ino]
        folder, name = target.parent(place)
        with suppress(OSError):  # No links there, or on yet another file system: it is copied.
            os.link(name, self._name, src_dir_fd=folder, dst_dir_fd=beside, follow_symlinks=False)
            linked = os.stat(self._name, dir_fd=beside, follow_symlinks=False)
            if linked.st_ino == number and linked.st_uid == os.geteuid():
                return True
            os.unlink(self._name, dir_fd=beside)  # Another user has put it there meanwhile.
        return False

    def _copy_file(self, folder: int, name: str, beside: int, found: os.stat_result) -> None:
        digest = hashlib.sha256()
        fd = os.open(name, OPEN_FILE, dir_fd=folder)
        try:
            new = os.open(self._name, NEW_FILE, 0o600, dir_fd=beside)
            try:
                while True:
                    data = os.read(fd, _CHUNK)
                    if not data:
                        break
                    digest.update(data)
                    write_whole(new, data)
                    self._read(len(data))
                if blob := xattrs.read(fd):
                    xattrs.apply(new, blob)  # What that file system does not take is left out.
                os.fchmod(new, stat.S_IMODE(found.st_mode))
                os.utime(new, ns=(found.st_mtime_ns, found.st_mtime_ns))
                os.fsync(new)
                self._number = os.fstat(new).st_ino
            finally:
                os.close(new)
        finally:
            os.close(fd)
        self._digest = digest.digest()

    def _verify(self, target: Tree, copy: str, place: str) -> None:
        entry = Entry(copy, FILE, UNKNOWN, 0, 0, 0)
        if digest_file(target, entry, self._read, medium=self._medium) != self._digest:
            raise AgentError(
                "CHECKSUM_MISMATCH",
                f"{show(place)} was copied to its place on another file system, and differs there",
            )

    def _announce(self, above: str) -> None:
        if above not in self._noted:
            self._noted.add(above)
            fd = open_plain(self._note_in, _NOTE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                write_whole(fd, (json.dumps([above, self._name]) + "\n").encode("ascii"))
                os.fsync(fd)
            finally:
                os.close(fd)

    def discard(self, folder: int) -> None:
        """Remove a copy that could not take its place."""
        discard_copy(folder, self._name)

    def flush(self) -> None:
        """Make what was copied durable: those file systems are not the staging folder's."""
        while self._written:
            _, fd = self._written.popitem()
            try:
                make_durable(fd)
            finally:
                os.close(fd)


def discard_copy(folder: int, name: str) -> None:
    """Remove a copy of this user's that a killed agent has left in a folder."""
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        plain = stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)
        if plain and found.st_uid == os.geteuid():
            os.unlink(name, dir_fd=folder)


def clear_copies(target: int, staging: int) -> None:
    """Remove the copies that a killed agent has left, by the note in the staging folder."""
    left = list(_noted(staging))
    if left:
        tree = Tree(os.dup(target))
        try:
            for above, name in left:
                with suppress(FileNotFoundError, NotADirectoryError, AgentError):
                    discard_copy(tree.folder(above), name)
        finally:
            tree.close()


def _noted(staging: int) -> Iterator[tuple[str, str]]:
    try:
        fd = open_plain(staging, _NOTE, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, "rb") as lines:
        for line in lines:
            try:
                above, name = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # The line was cut off: then no copy was made.
            if isinstance(above, str) and isinstance(name, str) and is_staging(name):
                yield above, name
