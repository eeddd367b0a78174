"""A folder tree that is reached through directory descriptors only.

Every path is walked name by name with O_NOFOLLOW, so that neither `..` nor a symlink leads out of
the root, whenever another program puts it there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import contextmanager, suppress
from itertools import count

from engine.agent.inodes import is_stamp, renumbers, stamp
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FILE, FOLDER, HARD_LINK, LINK, AgentError, Entry, explain, show

if TYPE_CHECKING:
    from typing import Any, Iterator

_WALK = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
#: Flags to read a file or a folder: they follow no link, and do not wait for a pipe's other end.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: The kinds of entries in a stat's mode.
_FORMATS = {FILE: stat.S_IFREG, HARD_LINK: stat.S_IFREG, LINK: stat.S_IFLNK, FOLDER: stat.S_IFDIR}
#: Times that a folder may list nothing and still refuse its removal, before that is an error.
_EMPTY_LISTINGS = 100
#: The least size (bytes) of a file whose holes are counted: small ones may lie in their inode.
HOLES_FROM = 1 << 20
#: Texts that cannot be the last name of a path.
_NO_NAMES = ("", ".", "..")
_OPEN = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY


def check_path(path: str) -> str:
    """Return the path; raises PATH_OUTSIDE_ROOT if it is not relative, clean and inside."""
    walled = f"/{path}/"
    if path and ("//" in walled or "/./" in walled or "/../" in walled or "\0" in path):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} is not a clean path below the root")
    return path


def check_time(mtime_ns: int, path: str) -> int:
    """Return the time; raises TIME_NOT_CARRIED unless it is in 1677 to 2262 (64 bits of ns)."""
    if not -(1 << 63) <= mtime_ns < 1 << 63:
        raise AgentError(
            "TIME_NOT_CARRIED",
            f"{show(path)} has a time before 1677 or after 2262, which cannot be carried: set it",
        )
    return mtime_ns


def resolve(root: str, path: str, recorded: str = "") -> str:
    """Find the real absolute path of `path` below `root`; it need not exist.

    Follows symlinks as long as they stay inside the root. Raises ROOT_MOVED if the root is another
    folder than the `recorded` one (a real path).
    """
    if not root.startswith("/"):
        raise AgentError("BAD_REQUEST", f"the root {show(root)} is not an absolute path")
    path = path.rstrip("/")
    check_path(path)
    real_root = os.path.realpath(root)
    if recorded and real_root != recorded:
        _refuse_root(root, real_root, recorded)
    real = os.path.realpath(os.path.join(real_root, path)) if path else real_root
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} leads out of {show(root)}")
    return real


def _refuse_root(root: str, found: str, recorded: str) -> None:
    if not os.path.isdir(found):  # Perhaps a disk is not mounted, so that a link to it is broken.
        raise AgentError("ROOT_MISSING", f"the root {show(root)} does not exist")
    raise AgentError(
        "ROOT_MOVED",
        f"the root {show(root)} leads to {show(found)} now; on record is {show(recorded)}",
    )


def open_real(real: str, make: bool = False) -> tuple[int, list[str]]:
    """Open a folder by its real path; return its descriptor and the folders made for it.

    No component may be a symlink. With `make`, makes missing folders.
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
        return _enter(".", fd), made
    except OSError as error:
        raise explain(error, walked) from error
    finally:
        os.close(fd)


def _enter(name: str, folder: int) -> int:
    """Open a folder; to pass through it only, if it may not be read."""
    try:
        return os.open(name, _OPEN, dir_fd=folder)
    except PermissionError:
        return os.open(name, _WALK, dir_fd=folder)


class Tree:
    """A root folder and a small cache of the descriptors of folders below it.

    `real` is its absolute path, for symlinks that name it.
    """

    #: Few enough for an account that may open few files.
    CACHE = max(2, min(64, (os.sysconf("SC_OPEN_MAX") % (1 << 31) - 14) // 4))

    def __init__(self, fd: int, real: str = "") -> None:
        self.fd = fd
        self.real = real
        self._cache: OrderedDict[str, int] = OrderedDict()
        #: The last folder that was asked for: most entries lie beside the one before.
        self._last = ("", fd)
        #: The `staging.grafts.Grafts` of a staging tree: its folders on other file systems.
        self.grafts: Any = None

    def folder(self, path: str) -> int:
        """A descriptor of a folder; it belongs to the tree, and the caller must not keep it."""
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
            walked = f"{walked}/{name}" if walked else name
            grafts = self.grafts
            fd = grafts.open(walked) if grafts and walked in grafts else _enter(name, fd)
            self._keep(walked, fd)
        self._last = (path, fd)
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the folder that holds a path, and the path's last name."""
        above, slash, name = path.rpartition("/")
        if name in _NO_NAMES or "\0" in name or (slash and not above):
            check_path(path or "..")
        return self.folder(above), name

    def follow(self, path: str, most: int) -> str:
        """Find where a symlink of the tree ends; "" if that is not below the root.

        Also "" after more than `most` links in a row, and for a link to nothing.
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
        """The text of a symlink; None if the name is not one, "" if there is no such name."""
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

    def on_each_system(self) -> list[int]:
        """A descriptor on each file system that the tree is known to lie on; any thread may ask."""
        return [self.fd, *(self.grafts.descriptors() if self.grafts else ())]

    def close(self) -> None:
        """Close all descriptors."""
        self.forget()
        if self.grafts:
            self.grafts.close()
            self.grafts = None
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
        # The newest descriptor is in use; older ones may be closed.
        while len(self._cache) > self.CACHE:
            os.close(self._cache.popitem(last=False)[1])
        self._last = (path, fd)


def close_all(descriptors: list[int]) -> None:
    """Close open files."""
    for fd in descriptors:
        os.close(fd)


def entry_of(folder: int, name: str, path: str) -> Entry | None:
    """The entry of a name in a folder; None if it is of a kind that Ketter does not carry."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return entry_from(found, folder, name, path)


def entry_from(found: os.stat_result, folder: int, name: str, path: str) -> Entry | None:
    """As `entry_of`, for a stat that the caller has taken."""
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


def holes_of(found: os.stat_result) -> int:
    """Bytes of a file that take no room on its disk; 0 for a small one."""
    if found.st_size < HOLES_FROM or not stat.S_ISREG(found.st_mode):
        return 0
    return max(0, found.st_size - found.st_blocks * 512)


def unchanged(entry: Entry, found: os.stat_result) -> bool:
    """True if a stat still shows the entry that was scanned; see `inodes.number_of`."""
    return (
        found.st_mtime_ns == entry.mtime_ns
        and (
            found.st_ino == entry.ino
            or not entry.ino
            or stamp(found) == entry.ino
            or (not is_stamp(entry.ino) and renumbers(found.st_dev))
        )
        and (entry.kind not in (FILE, HARD_LINK) or found.st_size == entry.size)
        and stat.S_IFMT(found.st_mode) == _FORMATS[entry.kind]
    )


def list_names(folder: int) -> list[str]:
    """The names in an open folder, as they are now."""
    with scan_folder(folder) as listing:
        return [item.name for item in listing]


@contextmanager
def scan_folder(folder: int) -> Iterator[Any]:
    """As `os.scandir`, for an open folder as it is now.

    Btrfs, from Linux 6.4.12 on, lists a descriptor's folder as it was when it was opened or last
    rewound, which POSIX allows (readdir, rewinddir); sshfs lists it once and is empty then. So
    this opens the folder again, or rewinds it where it may be read but not entered.
    """
    try:
        again = os.open(".", _OPEN, dir_fd=folder)
    except PermissionError:
        again = os.dup(folder)
        os.lseek(again, 0, os.SEEK_SET)
    try:
        with os.scandir(again) as listing:
            yield listing
    finally:
        os.close(again)


def remove_tree(folder: int, name: str) -> None:
    """Remove a name and everything below it, following no symlink.

    It first moves deeper folders up to the top, so that neither descriptors nor recursion run
    out. Other programs may be writing there, or removing, at the same time.
    """
    if _unlink(folder, name):
        return
    try:
        top = os.open(name, _OPEN, dir_fd=folder)
    except FileNotFoundError:
        return
    try:
        remove_open(folder, name, top)
    finally:
        os.close(top)


def remove_open(folder: int, name: str, top: int) -> None:
    """Remove an open folder and everything below it; what has its name by now stays."""
    unique, empty = os.urandom(8).hex(), 0
    names = (f"{unique}{number}" for number in count())
    _open_to_us(top)
    while not _remove_empty(folder, name, top):
        waiting = list_names(top)
        empty += not waiting
        if empty == _EMPTY_LISTINGS:
            os.rmdir(name, dir_fd=folder)
        for inner in waiting:
            if not _unlink(top, inner):
                _move_up(top, inner, names)


def _move_up(top: int, name: str, names: Iterator[str]) -> None:
    """Move the folders in a folder of `top` up to it, under new names, and remove the rest."""
    try:
        folder = os.open(name, _OPEN, dir_fd=top)
    except FileNotFoundError:
        return
    try:
        _open_to_us(folder)
        for inner in list_names(folder):
            if not _unlink(folder, inner):
                with suppress(FileNotFoundError):
                    os.rename(inner, next(names), src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    _remove_empty(top, name)


def _open_to_us(folder: int) -> None:
    with suppress(OSError):  # Some file systems keep no modes; what is then refused says so.
        os.fchmod(folder, 0o700)


def _unlink(folder: int, name: str) -> bool:
    """Remove a name that is not a folder; False if it is one."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        # unlink refuses a folder with EISDIR on Linux and with EPERM on macOS.
        if _is_folder(folder, name):
            return False
        raise
    return True


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True  # Another program removes it, too; the caller sees that when it opens it.


def _remove_empty(folder: int, name: str, top: int = -1) -> bool:
    """Remove a folder, as `top` only if its name leads there; False if it is not empty."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False) if top >= 0 else None
        if found is None or os.path.samestat(found, os.fstat(top)):
            os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True
