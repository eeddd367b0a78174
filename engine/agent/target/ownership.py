"""Decides whether this user made what lies at the target, by its owner, mode and kind.

Other users may write into a target folder, and so may put a folder there that has the name of a
staging folder. Most file systems keep the owner and the mode of a folder: there an agent uses
only a folder that is its own user's and closed to all others. Some keep neither (exFAT, NTFS,
sshfs, bindfs with a fixed owner, NFS with root_squash). To find out which, the agent makes a
file and looks at it by its descriptor, so that no other user can falsify the result. A file
system that may show everything as one user's, perhaps as this user's, counts as one that keeps
owners only if it can also show another owner.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from engine.agent.inodes import keeps
from engine.agent.wire import AgentError, explain, show, staging_name
from engine.agent.write_access import writable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Flags to open a plain file: they follow no link, and do not wait for a pipe's other end.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: The number of a user to give a file to for a moment; the number has no meaning here.
_ANOTHER = 65_533
#: Bits of a mode that give access to others than the owner.
_OTHERS = 0o077
#: Errors by which a system says that a name is no file, or no folder.
_NO_PLAIN = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)
#: The most bytes of a note; the longest one names the folders that were made.
_MOST = 1 << 20


def not_ours(name: str, found: str) -> AgentError:
    """The error for a thing at the target that this transfer did not put there."""
    return AgentError(
        "STAGING_NOT_OURS",
        f"{show(name)} {found}: this transfer did not make it, so it is not used; another user of "
        "this host may have put it there. Move it away, then try again",
    )


def open_private(parent: int, name: str) -> tuple[int, bool]:
    """Open a folder that only this user can write to; the flag says if owners are kept there.

    Where the file system keeps no owners, this accepts any folder on it: the caller needs another
    proof of its content. Raises STAGING_NOT_OURS if another user may have made or filled it.
    """
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in _NO_PLAIN:
            raise not_ours(name, "is no folder") from error
        if isinstance(error, PermissionError):
            raise _of_another(parent, name, error) from error
        raise
    try:
        found = os.fstat(fd)
        if found.st_dev != os.fstat(parent).st_dev:
            raise not_ours(name, "lies on another file system than the folder around it")
        is_private = _is_private(found)
        if is_private and keeps(found.st_dev, parent, name):
            return fd, True
        with writable(parent):
            is_kept = keeps_owners(parent)
        if is_private:
            return fd, is_kept and shows_others(parent)
        if is_kept:
            raise not_ours(name, _owned(found))
    except BaseException:
        os.close(fd)
        raise
    return fd, False


def keeps_owners(folder: int, user: int | None = None) -> bool:
    """True if a new file in an open folder has this user as its owner, and mode 0600, as asked.

    With a `user`, give the file to that user; true if it then has that owner. The file has the
    name of a staging folder, which no transfer carries.
    """
    name = staging_name(os.urandom(8).hex())
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=folder)
    try:
        if user is not None:
            with suppress(OSError):
                os.fchown(fd, user, -1)
        found = os.fstat(fd)
        return _is_private(found) if user is None else found.st_uid == user
    finally:
        os.close(fd)
        os.unlink(name, dir_fd=folder)


def shows_others(folder: int) -> bool:
    """True if the file system of an open folder shows a folder above it as another user's.

    Root owns most folders. So root gives a file to another user, and looks at that one.
    """
    if os.geteuid() == 0:
        return keeps_owners(folder, _ANOTHER)
    device, here = os.fstat(folder).st_dev, os.dup(folder)
    try:
        while True:
            found = os.fstat(here)
            if found.st_dev != device:
                return False
            if found.st_uid != os.geteuid():
                return True
            above = os.open("..", _FOLDER, dir_fd=here)
            os.close(here)
            here = above
            if os.path.samestat(os.fstat(here), found):
                return False
    except OSError:
        return False  # A folder above may not be opened, so nothing is known.
    finally:
        os.close(here)


def open_plain(folder: int, name: str, flags: int, mode: int = 0o600) -> int:
    """Open a plain file with one name, of the folder's owner.

    Raises STAGING_NOT_OURS if it is anything else.
    """
    try:
        fd = os.open(name, flags | _PLAIN, mode, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_PLAIN:
            raise not_ours(name, "in the staging folder is no plain file") from error
        raise
    found, around = os.fstat(fd), os.fstat(folder)
    kind = ""
    if not stat.S_ISREG(found.st_mode):
        kind = "is no plain file"
    elif found.st_nlink > 1:
        kind = "has a second name"
    elif found.st_uid != around.st_uid:
        kind = f"belongs to user {found.st_uid}, and the folder to user {around.st_uid}"
    if kind:
        os.close(fd)
        raise not_ours(name, f"in the staging folder {kind}")
    return fd


def write_note(folder: int, name: str, text: str) -> None:
    """Write a small file of the staging folder; readers see all of it, or the old one."""
    new = name + ".new"
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)  # An attempt was killed while it wrote its note.
    fd = open_plain(folder, new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def read_note(folder: int, name: str) -> str:
    """Read a small file of the staging folder; "" if it does not exist."""
    try:
        fd = open_plain(folder, name, os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, _MOST).decode("ascii", "replace")
    finally:
        os.close(fd)


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS


def _of_another(parent: int, name: str, error: OSError) -> AgentError:
    """The error for a folder that this user may not open."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if found.st_uid == os.geteuid():
        return explain(error, name)
    return not_ours(name, _owned(found))


def _owned(found: os.stat_result) -> str:
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"belongs to user {found.st_uid} and has mode {mode:04o} "
        f"(expected: user {os.geteuid()}, mode 0700)"
    )
