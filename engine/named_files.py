"""Files that a person names. Those for reading: plain files alone, since a pipe may wait for ever.

Those for output: opened once, through no symlink, closed to other users. They list the names of
files, and may lie in a folder that other users can write to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from typing import BinaryIO

from engine import errors

#: The streams of this process, which are symlinks on Linux.
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/")
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: The most symlinks on the way to a file: more count as a loop.
_MOST_LINKS = 40


#: What a path may be that is no plain file.
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read(path: str) -> BinaryIO:
    """Open a plain file, through symlinks as well.

    It never waits: not for a program that writes to a pipe, nor for a device. Raises OSError, or
    ValueError for what is neither a plain file nor a folder.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if kind := _kind(found):
            raise ValueError(f"it is {kind}; name a plain file")
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def why_not_plain(path: str) -> str:
    """Return why a path is no plain file, as a sentence; empty if it is one."""
    try:
        kind = _kind(os.stat(path))
    except (FileNotFoundError, ValueError):
        return f"there is no file {path}"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return f"{path} is {kind}; name a plain file" if kind else ""


def _kind(found: os.stat_result) -> str:
    """Return what this is, if it is no plain file."""
    return next((word for matches, word in _KINDS if matches(found.st_mode)), "")


def create(path: str) -> BinaryIO:
    """Open a new file for its owner alone (mode 0600); a file that lies there is replaced.

    A device, and a pipe of this user that a program reads, is opened as it is. Raises BadRequest if
    the path is empty, a symlink, a folder or another user's pipe, or leads through another user's
    symlink, or if the system refuses it.
    """
    if path.startswith(_STREAMS):
        return open(path, "wb")
    try:
        folder, name = _folder_of(path)
        try:
            return os.fdopen(_opened(path, folder, name), "wb")
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.BadRequest(f"{path} cannot be written: {reason}") from error


class Replacement:
    """A new file, written beside the one that it replaces when it is whole.

    It is as `create` makes one: for its owner alone, through no symlink. A device, a pipe or a
    stream of this process is written to as it is. Raises BadRequest as `create` does, at once.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder, self._beside = -1, ""
        if path.startswith(_STREAMS):
            self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by `end`
            return
        try:
            self._folder, self._name = _folder_of(path)
            try:
                self._file = os.fdopen(self._opened(), "wb")
            except BaseException:
                os.close(self._folder)
                raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise errors.BadRequest(f"{path} cannot be written: {reason}") from error

    def write(self, lines: Iterable[bytes]) -> None:
        """Write all lines, and put the file into place; raises OSError if the system refuses."""
        for line in lines:
            self._file.write(line)
        self._file.flush()
        if self._beside:
            os.fsync(self._file.fileno())
            os.rename(self._beside, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            self._beside = ""

    def end(self) -> None:
        """Close it; a file that was not put into place is removed."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._folder >= 0:
            if self._beside:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._beside, dir_fd=self._folder)
            os.close(self._folder)
            self._folder = -1

    def _opened(self) -> int:
        try:
            found = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found and not stat.S_ISREG(found.st_mode):
            return _opened(self._path, self._folder, self._name)
        if found:
            _require_replaceable(self._path, found, os.stat(".", dir_fd=self._folder))
        # Not the name and more: that may be too long. One like this is never part of a tree.
        self._beside = f".ketter-new-{os.urandom(8).hex()}.part"
        return _made(self._folder, self._beside)


def _require_replaceable(path: str, found: os.stat_result, folder: os.stat_result) -> None:
    """Raises BadRequest for another user's file in a sticky folder, which cannot be replaced."""
    ours = (found.st_uid, folder.st_uid)
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, *ours):
        raise errors.BadRequest(f"{path} belongs to another user; name another file")


def _folder_of(path: str) -> tuple[int, str]:
    """Open the folder of a file; return its descriptor and the file's name.

    A symlink on the way is followed if it is this user's or root's: another user's may lead to any
    file of this user that has the same name. Raises BadRequest for such a one.
    """
    waiting = path.split("/")
    name = waiting.pop()
    if "" in (path, name) or name in (".", ".."):
        raise errors.BadRequest(f"{path} cannot be written: the path names no file")
    fd, left = os.open("/" if path[:1] == "/" else ".", _FOLDER), _MOST_LINKS
    waiting.reverse()
    try:
        while waiting:
            part = waiting.pop()
            if part in ("", "."):
                continue
            found = os.stat(part, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                left -= 1
                if found.st_uid not in (0, os.geteuid()) or not left:
                    reason = "leads through a symlink of another user" if left else "is a loop"
                    raise errors.BadRequest(f"{path} {reason}; name a file elsewhere")
                link = os.readlink(part, dir_fd=fd)
                waiting += reversed(link.split("/"))
                part = "/" if link[:1] == "/" else "."
            fd, above = os.open(part, _FOLDER, dir_fd=fd), fd
            os.close(above)
        return fd, name
    except BaseException:
        os.close(fd)
        raise


def _opened(path: str, folder: int, name: str) -> int:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return _made(folder, name)
    if stat.S_ISLNK(found.st_mode):
        raise errors.BadRequest(f"{path} is a symlink; name the file itself")
    if stat.S_ISDIR(found.st_mode):
        raise errors.BadRequest(f"{path} is a folder; name a file in it")
    if stat.S_ISREG(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return _made(folder, name)
    # O_NONBLOCK: a pipe that nothing reads raises ENXIO, it does not wait.
    fd = os.open(name, _WRITE | os.O_NONBLOCK, dir_fd=folder)
    try:
        _require_ours(path, os.fstat(fd))
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _made(folder: int, name: str) -> int:
    return os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)


def _require_ours(path: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise errors.BadRequest(f"{path} belongs to another user; name another file")
