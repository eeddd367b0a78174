"""A folder tree that is only ever touched through directory descriptors.

Every path is walked component by component with O_NOFOLLOW, so neither `..`
nor a symlink, however timed, leads out of the root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress
from itertools import count
from typing import Iterator

from engine.agent.wire import FILE, FOLDER, LINK, AgentError, Entry, explain, show

_WALK = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
#: For reading a file or a folder: never through a link, never waiting for a pipe's other end.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: How often a folder may look empty and still not be removed, before that is an error.
_EMPTY_LOOKS = 100
#: What cannot be the last name of a path.
_NO_NAMES = ("", ".", "..")
_OPEN = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY


def check_path(path: str) -> str:
    """The path, if it is relative, clean and stays inside; PATH_OUTSIDE_ROOT if not."""
    walled = f"/{path}/"
    if path and ("//" in walled or "/./" in walled or "/../" in walled or "\0" in path):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} is not a clean path below the root")
    return path


def check_time(mtime_ns: int, path: str) -> int:
    """The time, if it is between 1677 and 2262, as 64 bits of ns hold; TIME_NOT_CARRIED if not."""
    if not -(1 << 63) <= mtime_ns < 1 << 63:
        raise AgentError("TIME_NOT_CARRIED", f"{show(path)} has a time centuries away from now")
    return mtime_ns


def resolve(root: str, path: str) -> str:
    """The real absolute path of `path` below `root`; it need not exist.

    Symlinks are followed as long as they stay inside the root.
    """
    if not root.startswith("/"):
        raise AgentError("BAD_REQUEST", f"{show(root)} is not an absolute folder")
    path = path.rstrip("/")
    check_path(path)
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, path)) if path else real_root
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} leads out of {show(root)}")
    return real


def open_real(real: str, make: bool = False) -> tuple[int, list[str]]:
    """A descriptor of a folder named by its real path, and the folders made for it.

    No component may be a symlink. With `make`, missing folders are made.
    """
    made: list[str] = []
    walked, fd = "", os.open("/", _WALK)
    try:
        for part in real.strip("/").split("/") if real.strip("/") else ():
            walked += "/" + part
            try:
                below = os.open(part, _WALK, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(part, 0o777, dir_fd=fd)
                made.append(walked)
                below = os.open(part, _WALK, dir_fd=fd)
            os.close(fd)
            fd = below
        return os.open(".", _OPEN, dir_fd=fd), made
    except OSError as error:
        raise explain(error, walked) from error
    finally:
        os.close(fd)


class Tree:
    """A root folder and a small cache of the descriptors of folders below it.

    `real` is its absolute path, for symlinks that name it.
    """

    CACHE = 64

    def __init__(self, fd: int, real: str = "") -> None:
        self.fd = fd
        self.real = real
        self._cache: OrderedDict[str, int] = OrderedDict()
        #: The folder that was asked for last, since most entries lie beside the one before.
        self._last = ("", fd)

    def folder(self, path: str) -> int:
        """A descriptor of the folder; it belongs to the tree and must not be kept."""
        if path == self._last[0]:
            return self._last[1]
        if not path:
            return self.fd
        known = self._cache.get(path)
        if known is not None:
            self._cache.move_to_end(path)
            self._last = (path, known)
            return known
        check_path(path)
        walked, fd = self._nearest(path)
        for name in path[len(walked) :].strip("/").split("/"):
            fd = os.open(name, _OPEN, dir_fd=fd)
            walked = f"{walked}/{name}" if walked else name
            self._keep(walked, fd)
        self._last = (path, fd)
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the folder that holds the path, and the path's last name."""
        above, slash, name = path.rpartition("/")
        if name in _NO_NAMES or "\0" in name or (slash and not above):
            check_path(path or "..")
        return self.folder(above), name

    def follow(self, path: str, most: int) -> str:
        """The path at which a symlink of the tree ends; "" if that is not below the root.

        So it is for more than `most` links in a row, and for a link to nothing.
        """
        done: list[str] = []
        waiting = path.split("/")[::-1]
        while waiting:
            part = waiting.pop()
            if part == "..":
                if not done:
                    return ""
                done.pop()
            elif part not in ("", "."):
                link = self._link("/".join(done), part)
                if link is None:
                    done.append(part)
                    continue
                most -= 1
                if link.startswith("/"):
                    if not self.real or not link.startswith(self.real.rstrip("/") + "/"):
                        return ""
                    link, done = link[len(self.real) :], []
                if most < 0 or not link:
                    return ""
                waiting += link.split("/")[::-1]
        return "/".join(done)

    def _link(self, above: str, name: str) -> str | None:
        """Where a name leads to if it is a symlink; "" if there is no such name."""
        try:
            folder = self.folder(above)
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return os.readlink(name, dir_fd=folder) if stat.S_ISLNK(info.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def forget(self) -> None:
        """Close the descriptors of the folders below the root."""
        self._last = ("", self.fd)
        while self._cache:
            os.close(self._cache.popitem()[1])

    def close(self) -> None:
        """Close everything."""
        self.forget()
        os.close(self.fd)

    def _nearest(self, path: str) -> tuple[str, int]:
        while path:
            path = path.rpartition("/")[0]
            known = self._cache.get(path)
            if known is not None:
                return path, known
        return "", self.fd

    def _keep(self, path: str, fd: int) -> None:
        self._cache[path] = fd
        # The one just added is in use; anything older may go.
        while len(self._cache) > self.CACHE:
            os.close(self._cache.popitem(last=False)[1])
        self._last = (path, fd)


def entry_of(folder: int, name: str, path: str) -> Entry | None:
    """The entry a name in a folder stands for, or None if it is of no kind we carry."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return entry_from(found, folder, name, path)


def entry_from(found: os.stat_result, folder: int, name: str, path: str) -> Entry | None:
    """As `entry_of`, for a stat that was taken already."""
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode):
        return Entry(path, FILE, found.st_size, found.st_mtime_ns, mode, found.st_ino)
    if stat.S_ISDIR(found.st_mode):
        return Entry(path, FOLDER, 0, found.st_mtime_ns, mode, found.st_ino)
    if stat.S_ISLNK(found.st_mode):
        link = os.readlink(name, dir_fd=folder)
        size = len(os.fsencode(link))
        return Entry(path, LINK, size, found.st_mtime_ns, mode, found.st_ino, link)
    return None


def unchanged(entry: Entry, found: os.stat_result) -> bool:
    """Whether a stat still shows the entry that was scanned."""
    return (
        found.st_mtime_ns == entry.mtime_ns
        and found.st_ino == entry.ino
        and (entry.kind != FILE or found.st_size == entry.size)
    )


def remove_tree(folder: int, name: str) -> None:
    """Remove a name and everything below it, following no symlink.

    However deep: folders below are first moved up to the top, so that neither
    descriptors nor recursion run out. Somebody may still be writing there, or removing.
    """
    if _unlink(folder, name):
        return
    try:
        top = os.open(name, _OPEN, dir_fd=folder)
    except FileNotFoundError:
        return
    unique, empty = os.urandom(8).hex(), 0
    names = (f"{unique}{number}" for number in count())
    try:
        os.fchmod(top, 0o700)
        while not _remove_empty(folder, name):
            waiting = os.listdir(top)
            empty += not waiting
            if empty == _EMPTY_LOOKS:
                os.rmdir(name, dir_fd=folder)
            for inner in waiting:
                if not _unlink(top, inner):
                    _move_up(top, inner, names)
    finally:
        os.close(top)


def _move_up(top: int, name: str, names: Iterator[str]) -> None:
    """Move the folders in a folder of `top` up to it, under new names, and remove the rest."""
    try:
        folder = os.open(name, _OPEN, dir_fd=top)
    except FileNotFoundError:
        return
    try:
        os.fchmod(folder, 0o700)
        for inner in os.listdir(folder):
            if not _unlink(folder, inner):
                with suppress(FileNotFoundError):
                    os.rename(inner, next(names), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    _remove_empty(top, name)


def _unlink(folder: int, name: str) -> bool:
    """Remove what is no folder; False if it is one."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        # A folder: unlink says EISDIR on Linux and EPERM on macOS.
        if _is_folder(folder, name):
            return False
        raise
    return True


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True  # Somebody else removes it, too: whoever opens it will see.


def _remove_empty(folder: int, name: str) -> bool:
    """Remove a folder; False if something is in it."""
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
