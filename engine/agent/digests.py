"""Single steps in a staging tree: make a folder, take an entry out, hash, make durable."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from typing import Any, Callable

from engine.agent.desk import Desk
from engine.agent.tree import OPEN_FILE, Tree, check_path, remove_tree
from engine.agent.wire import (
    DIGEST,
    FILE,
    FOLDER,
    LINK,
    MAX_LINK,
    MAX_PATH,
    NO_DIGEST,
    STAGING_PREFIX,
    TWIN,
    AgentError,
    Entry,
    is_staging,
    show,
    unpack_entries,
)

_CHUNK = 1 << 20
_DROP_CACHE = getattr(os, "posix_fadvise", None)
_EMPTY = hashlib.sha256().digest()


def check_entry(entry: Entry) -> None:
    """Refuse an entry that is none of a source's: one that leads out, or into a staging folder."""
    path = check_path(entry.path)
    if len(path) > MAX_PATH:
        raise AgentError("NAME_TOO_LONG", f"{show(path[:100])}… is too long a path")
    if entry.kind == LINK and entry.size > MAX_LINK:
        raise AgentError("NAME_TOO_LONG", f"{show(path)} is a symlink with too long a text")
    if STAGING_PREFIX in path and any(map(is_staging, path.split("/"))):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} lies in a transfer's own folder")


def make_folder(staging: Tree, path: str) -> None:
    """Make a folder of the staging tree and those above it, open to us until it is finished."""
    # It may have been made for an entry below it, or by another stream.
    with suppress(FileExistsError):
        try:
            above, name = staging.parent(path)
            os.mkdir(name, 0o700, dir_fd=above)
            return
        except FileNotFoundError:
            pass
    walked = ""
    for name in path.split("/"):
        above = staging.folder(walked)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
        walked = f"{walked}/{name}" if walked else name


def discard(staging: Tree, entry: Entry) -> None:
    """Take one entry out of the staging tree, if it is there."""
    if entry.kind == FOLDER:
        return
    try:
        folder, name = staging.parent(entry.path)
    except FileNotFoundError:
        return
    remove_tree(folder, name)


def digest_file(
    tree: Tree,
    entry: Entry,
    read: Callable[[int], None],
    medium: bool,
    at_source: bool = False,
) -> bytes:
    """The SHA-256 of an entry as it is now; `read` is told of the bytes as they are read.

    At the source a file may lie elsewhere than its path says: behind a link that
    is followed. With `medium` a file is dropped from the page cache first, where the platform
    can (Linux), so that the bytes come from the disk; they must be durable already.
    """
    if entry.kind in (FOLDER, TWIN):
        return _EMPTY
    follow = at_source and entry.kind == FILE and entry.link
    folder, name = tree.parent(entry.link if follow else entry.path)
    if entry.kind == LINK:
        return hashlib.sha256(os.fsencode(os.readlink(name, dir_fd=folder))).digest()
    digest = hashlib.sha256()
    fd = os.open(name, OPEN_FILE, dir_fd=folder)
    try:
        if medium and _DROP_CACHE is not None:
            _DROP_CACHE(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            got = os.readv(fd, [buffer])
            if not got:
                return digest.digest()
            digest.update(buffer[:got])
            read(got)
    finally:
        os.close(fd)


def digests_of(
    desk: Desk, tree: Tree, blob: bytes, at_source: bool = False
) -> tuple[list[list[int]], bytes, list[int]]:
    """The ids and digests of a list of entries, from the medium; NO_DIGEST where one fails.

    An id is the device and inode of an entry that has no other name. Third come
    the places in the list of those that are not there at all.
    """
    digests = bytearray()
    ids: list[list[int]] = []
    gone: list[int] = []
    for index, entry in enumerate(unpack_entries(blob)):
        try:
            follow = at_source and entry.kind == FILE and entry.link
            folder, name = tree.parent(entry.link if follow else entry.path)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            ids.append([found.st_dev, found.st_ino] if found.st_nlink == 1 else [])
            digests += digest_file(tree, entry, desk.read, True, at_source)
        except OSError as error:
            # No digest is no proof: the caller treats it as different.
            digests += NO_DIGEST
            ids += [[]] * (len(digests) // DIGEST - len(ids))
            if isinstance(error, FileNotFoundError):
                gone.append(index)
    return ids, bytes(digests), gone


def made_as(fd: int) -> int:
    """The bits of a mode that a new file in a folder gets if it asks for them; 0 if not even these.

    A default ACL of the target's folder may take bits away, and so may a file system. Never tried
    in the tree that is published: another stream may be counting what is there.
    """
    name = f".{os.getpid():x}"
    probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=fd)
    try:
        return 0o755 if os.fstat(probe).st_mode & 0o777 == 0o755 else 0
    finally:
        os.close(probe)
        os.unlink(name, dir_fd=fd)


def make_durable(fd: int) -> None:
    """Have the file system that holds this folder write everything out."""
    import ctypes  # Not at the top: it costs every start some milliseconds.

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def refuse_shared(fd: int) -> int:
    """The descriptor of a staged file, if the file has no other name through which it is seen."""
    if os.fstat(fd).st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
    return fd


def write_whole(fd: int, data: Any) -> None:
    """Write all of it, however many calls it takes."""
    written = os.write(fd, data)
    while written < len(data):
        data = memoryview(data)[written:]
        written = os.write(fd, data)
