"""SHA-256 of files as the disk has them, and writing everything out to the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from engine.agent.context import Context
from engine.agent.inodes import keeps
from engine.agent.tree import OPEN_FILE, Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    DIGEST,
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    NO_DIGEST,
    Entry,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Callable

#: The size of an entry that has to be read as it is.
UNKNOWN = -1
_CHUNK = 1 << 20
_DROP_CACHE = getattr(os, "posix_fadvise", None)
_EMPTY = hashlib.sha256().digest()
#: Errors by which a file system says that it is not flushed by itself.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)


def digest_file(
    tree: Tree,
    entry: Entry,
    read: Callable[[int], None],
    medium: bool,
    at_source: bool = False,
) -> bytes:
    """Return the SHA-256 of an entry as it is now; calls `read` with the bytes of each read.

    At the source a file may lie elsewhere than its path says: behind a link that is followed.
    Of a file it reads no more than the entry's size, unless that is UNKNOWN; raises OSError if
    there is more. With `medium` a file is first dropped from the page cache, where the platform
    can (Linux), so that its bytes come from the disk; they must be durable already.
    """
    if entry.kind in (FOLDER, HARD_LINK):
        return _EMPTY
    follow = at_source and entry.kind == FILE and entry.link
    folder, name = tree.parent(entry.link if follow else entry.path)
    if entry.kind == LINK:
        return hashlib.sha256(os.fsencode(os.readlink(name, dir_fd=folder))).digest()
    digest = hashlib.sha256()
    fd = os.open(name, OPEN_FILE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # A pipe or a device may have no end.
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        left = found.st_size if entry.size == UNKNOWN else entry.size
        if medium and _DROP_CACHE is not None:
            _DROP_CACHE(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            got = os.readv(fd, [buffer])
            if not got:
                return digest.digest()
            digest.update(buffer[:got])
            read(got)
            left -= got
            if left < 0:  # Its owner may make it longer all the time, by a hole of exabytes.
                raise OSError(errno.EFBIG, "the file is longer than it was")
    finally:
        os.close(fd)


def digests_of(
    context: Context, tree: Tree, blob: bytes, at_source: bool = False
) -> tuple[list[list[int]], bytes, list[int]]:
    """Return ids and digests of a list of entries, from the medium; NO_DIGEST if one fails.

    An id is the device and inode of an entry with one name, where the file system keeps numbers.
    The third result lists the places of the entries that do not exist.
    """
    digests = bytearray()
    ids: list[list[int]] = []
    gone: list[int] = []
    for index, entry in enumerate(unpack_entries(blob)):
        try:
            follow = at_source and entry.kind == FILE and entry.link
            folder, name = tree.parent(entry.link if follow else entry.path)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            known = found.st_nlink == 1 and keeps(found.st_dev, folder, name)
            ids.append([found.st_dev, found.st_ino] if known else [])
            digests += digest_file(tree, entry, context.read, True, at_source)
        except OSError as error:
            # Without a digest nothing is proven: the caller treats the entry as different.
            digests += NO_DIGEST
            ids += [[]] * (len(digests) // DIGEST - len(ids))
            if isinstance(error, FileNotFoundError):
                gone.append(index)
    return ids, bytes(digests), gone


def make_tree_durable(tree: Tree) -> None:
    """As `make_durable`, for each file system that a tree is known to lie on."""
    for fd in tree.on_each_system():
        make_durable(fd)


def make_durable(fd: int) -> None:
    """Write everything out that the file system of an open folder still has in memory.

    Where it refuses to be asked alone, all file systems of the host are.
    """
    import ctypes  # Not at the top: it costs every start some milliseconds.

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(fd) != 0:
        number = ctypes.get_errno()
        if number not in _CANNOT_SYNC:
            raise OSError(number, os.strerror(number))
        os.sync()
