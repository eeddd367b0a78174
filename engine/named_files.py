"""Files that a person names for output: opened once, through no symlink, closed to other users.

They list the names of files, and may lie in a folder that other users can write to.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from engine import errors

#: The streams of this process, which are symlinks on Linux.
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/")
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def create(path: str) -> BinaryIO:
    """Open a new file for its owner alone (mode 0600); a file that lies there is replaced.

    A device, and a pipe of this user that a program reads, is opened as it is. Raises BadRequest if
    the path is empty, a symlink, a folder or another user's pipe, or if the system refuses it.
    """
    if path.startswith(_STREAMS):
        return open(path, "wb")
    try:
        return os.fdopen(_opened(path), "wb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.BadRequest(f"{path} cannot be written: {reason}") from error


def _opened(path: str) -> int:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return _made(path)
    if stat.S_ISLNK(found.st_mode):
        raise errors.BadRequest(f"{path} is a symlink; name the file itself")
    if stat.S_ISDIR(found.st_mode):
        raise errors.BadRequest(f"{path} is a folder; name a file in it")
    if stat.S_ISREG(found.st_mode):
        os.unlink(path)
        return _made(path)
    # O_NONBLOCK: a pipe that nothing reads raises ENXIO, it does not wait.
    fd = os.open(path, _WRITE | os.O_NONBLOCK)
    try:
        _require_ours(path, os.fstat(fd))
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _made(path: str) -> int:
    return os.open(path, _WRITE | os.O_CREAT | os.O_EXCL, 0o600)


def _require_ours(path: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        raise errors.BadRequest(f"{path} belongs to another user; name another file")
