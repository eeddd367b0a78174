"""The rules that a folder at the target has for names, found by trying names in it.

The worker checks the source's names against them (`engine.plan.name_check`).
"""

from __future__ import annotations

import errno
import os

from engine.agent.typed import NamedTuple

#: Errors by which a file system says that it cannot hold a name. An SFTP server behind sshfs
#: reports EBADMSG for a name that is too long.
_IMPOSSIBLE = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EBADMSG)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: The longest UTF-8 form of a UTF-16 unit, in which some file systems count.
_UNIT = "\u3042".encode()


class NameRules(NamedTuple):
    """How a folder treats names; it travels as a JSON list."""

    #: The most bytes of a name.
    name_max: int
    #: True if names that differ by case only are one.
    folds_case: bool
    #: True if names that differ by Unicode normalisation only are one.
    normalises: bool
    #: True if names must be UTF-8.
    utf8_only: bool = False


def probe(fd: int) -> NameRules:
    """Find the rules of an open folder by trying names in it.

    Makes and removes up to four empty files, one at a time. Raises OSError if not even a plain
    name can be written. Folders that exist below may have other rules.
    """
    # Random, so that a file found under another spelling is this one. The "a" at the start: if
    # this agent dies here, the next attempt removes the file (`Staging.prepare`).
    name = b"a-Probe-" + os.urandom(8).hex().encode()
    folds = _same(fd, name, name.swapcase())
    if folds is None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(name))
    most = os.fpathconf(fd, "PC_NAME_MAX")
    # A file system that counts UTF-16 units holds at most this many bytes of UTF-8.
    units = name + _UNIT * (most - len(name))
    if 0 < most < 1024 and _same(fd, units, units) is not None:
        most *= len(_UNIT)
    return NameRules(
        name_max=most if most > 0 else 1 << 16,
        folds_case=folds,
        normalises=bool(_same(fd, name + "e\u0301".encode(), name + "\u00e9".encode())),
        utf8_only=_same(fd, name + b"\xff", name + b"\xff") is None,
    )


def _same(fd: int, name: bytes, other: bytes) -> bool | None:
    """True if a file made as `name` is found as `other`; None if the file system refuses `name`."""
    try:
        os.close(os.open(name, _NEW, 0o600, dir_fd=fd))
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            return None
        raise
    try:
        os.stat(other, dir_fd=fd, follow_symlinks=False)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            return False
        raise
    finally:
        os.unlink(name, dir_fd=fd)
