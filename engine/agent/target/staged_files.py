"""Writing single entries into a staging tree, with mode, time and attributes; removing them."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from engine.agent.target.staging.kept import NOT_KEPT, dates_links, has_size_and_time
from engine.agent.tree import Tree, check_path, remove_tree
from engine.agent.typed import TYPE_CHECKING, NamedTuple
from engine.agent.wire import (
    FOLDER,
    HARD_LINK,
    LINK,
    MAX_LINK,
    MAX_PATH,
    STAGING_PREFIX,
    AgentError,
    Entry,
    is_staging,
    show,
)
from engine.agent.write_access import may

if TYPE_CHECKING:
    from typing import Any

#: Flags to make a file that must not exist yet.
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: The most refused attributes that a receiver names in its report of a parcel.
NAMED = 10
#: Errors by which a file system says that it has no symlinks, or no hard links.
_NO_LINKS = (
    errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK,
)  # fmt: skip
#: Errors that may say that a file cannot be made longer without being written (FAT).
_CANNOT_EXTEND = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
#: The least size (bytes) of a file whose space is reserved.
RESERVED = 1 << 20
#: Errors by which a file system, or a system, says that it reserves no space.
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)


class WriteOptions(NamedTuple):
    """The options of a transfer that change how the target's agent writes.

    `made_as`: the mode bits that a new file gets exactly as asked for; 0 if that is not certain.
    """

    readback: bool = False
    xattrs: bool = False
    special_bits: bool = False
    preallocate: bool = False
    made_as: int = 0

    @property
    def mode_bits(self) -> int:
        """The bits of an entry's mode that the target takes over."""
        return 0o7777 if self.special_bits else 0o777


class EntryWriter:
    """Writes the entries of one parcel into the staging tree.

    `refusals` counts the attributes that the target's file system did not take; `refused` names
    the first NAMED of them.
    """

    def __init__(self, staging: Tree, target: Tree, options: WriteOptions) -> None:
        self._staging, self._target = staging, target
        self._options = options
        self._made_as = options.made_as
        self.refused: list[str] = []
        self.refusals = 0

    def write(self, entry: Entry, data: Any) -> None:
        """Write one entry whose whole content is at hand.

        If that fails, nothing is left of the entry, and nothing that was there is touched: on a
        file system that folds cases the name may be that of another entry, which is proven.
        """
        if entry.kind == FOLDER:
            try:
                make_folder(self._staging, entry.path, entry.mode & 0o755 | 0o700)
            except OSError as error:
                raise name_error(error, entry) from error
            return
        folder, name = self.parent(entry.path)
        if entry.kind == HARD_LINK:
            self._link(folder, name, entry)
            return
        if entry.kind == LINK:
            self._symlink(folder, name, entry, data)
            return
        mode = entry.mode & self._made_as  # `finish` adds the bits that the umask takes away.
        fd = self.make(name, entry, mode | 0o200, folder)
        try:
            if data:
                self.reserve(fd, entry.size)
                write_whole(fd, data)
            self.finish(fd, entry, mode | 0o200 if self._made_as else -1)
        except OSError:
            os.close(fd)
            discard(self._staging, entry)
            raise
        try:
            os.close(fd)
        except OSError:
            discard(self._staging, entry)
            raise

    @staticmethod
    def make(name: str, entry: Entry, mode: int, folder: int) -> int:
        """Make an entry's file, which must not exist, and open it."""
        try:
            return os.open(name, NEW_FILE, mode, dir_fd=folder)
        except OSError as error:
            raise name_error(error, entry) from error

    def finish(self, fd: int, entry: Entry, has_mode: int = -1) -> None:
        """Give a written file its attributes, mode and time; `has_mode` is its mode, if known."""
        if entry.meta and self._options.xattrs:
            from engine.agent import xattrs  # The host compiles it only for a transfer that asks.

            for refused in xattrs.apply(fd, entry.meta):
                self.refusals += 1
                if len(self.refused) < NAMED:
                    self.refused.append(f"{entry.path[-200:]}: {refused}")
            has_mode = -1  # An ACL may have changed it.
        mode = entry.mode & self._options.mode_bits
        if mode != has_mode:
            give_mode(fd, mode)
        give_time(fd, entry.mtime_ns)

    def reserve(self, fd: int, size: int) -> None:
        """Reserve the disk space of an open file of that size (bytes), if that was asked for.

        A file below RESERVED is left alone: the call would cost more than it is good for. So is a
        file system that cannot reserve: glibc's posix_fallocate would write zeros there.
        """
        if not self._options.preallocate or size < RESERVED:
            return
        import ctypes  # Not at the top: it costs every start some milliseconds.

        fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
        if fallocate is None:  # macOS.
            return
        number = ctypes.c_int64
        if fallocate(fd, 0, number(0), number(size)) != 0:
            code = ctypes.get_errno()
            if code not in _CANNOT_RESERVE:
                raise OSError(code, os.strerror(code))

    def parent(self, path: str) -> tuple[int, str]:
        """The folder that an entry goes into, made if need be, and the entry's name in it."""
        try:
            return self._staging.parent(path)
        except FileNotFoundError:
            make_folder(self._staging, path.rpartition("/")[0])
            return self._staging.parent(path)

    def _symlink(self, folder: int, name: str, entry: Entry, data: Any) -> None:
        try:
            os.symlink(bytes(data), os.fsencode(name), dir_fd=folder)
        except OSError as error:
            option = "--symlinks follow or skip"
            raise _link_error(error, entry, folder, "symlinks", option) from error
        try:
            os.readlink(name, dir_fd=folder)
        except OSError as error:
            discard(self._staging, entry)
            sentence = f"{show(entry.path)}: the target's file system does not say where it leads"
            raise NotHeld("LINK_NOT_POSSIBLE", sentence) from error
        if not self._dates_links():
            return
        times = (entry.mtime_ns, entry.mtime_ns)
        try:
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NOT_KEPT:
                discard(self._staging, entry)
                raise

    def _dates_links(self) -> bool:
        """See `dates_links`; tried in the staging folder, not in the tree that is published."""
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._staging.fd)
        try:
            return dates_links(above)
        finally:
            os.close(above)

    def _link(self, folder: int, name: str, entry: Entry) -> None:
        """Give another name to a file that arrived before or is at the target already.

        Another user's file is not linked: its owner could change what stands under the new name.
        It arrives as a file then.
        """
        for tree in (self._staging, self._target):
            try:
                above, first = tree.parent(check_path(entry.link))
                found = os.stat(first, dir_fd=above, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            is_ours = tree is self._staging or found.st_uid == os.geteuid()
            is_file = stat.S_ISREG(found.st_mode)
            if is_ours and is_file and has_size_and_time(above, found, entry) is not False:
                try:
                    os.link(first, name, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
                except OSError as error:
                    option = "--hard-links copy"
                    raise _link_error(error, entry, folder, "hard links", option) from error
                linked = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if (linked.st_ino, linked.st_uid) == (found.st_ino, found.st_uid):
                    return
                os.unlink(name, dir_fd=folder)  # Another file has taken that name meanwhile.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def give_mode(fd: int, mode: int) -> None:
    """Give an open file of this user's a mode, if it keeps any; see `staging.kept.notes`."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in NOT_KEPT:
            raise


def give_time(fd: int, mtime_ns: int) -> None:
    """Give an open file of this user's a time (ns), if it keeps any; see `staging.kept.notes`."""
    try:
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if error.errno not in NOT_KEPT:
            raise


def extend(fd: int, size: int) -> None:
    """Make an open file longer, by a hole if the file system has any."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        if error.errno not in _CANNOT_EXTEND:
            raise
        os.pwrite(fd, b"\0", size - 1)


class NotHeld(OSError):
    """The target's file system cannot hold an entry; `problem` is what a person reads."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(errno.EOPNOTSUPP, sentence)
        self.problem = AgentError(code, sentence)


def _link_error(error: OSError, entry: Entry, folder: int, kind: str, option: str) -> OSError:
    """The error for a link; the same one, unless it says that there are none on that system."""
    if error.errno not in _NO_LINKS or not may(folder):
        return name_error(error, entry)
    sentence = f"{show(entry.path)}: the target's file system has no {kind}; see {option}"
    return NotHeld("LINK_NOT_POSSIBLE", sentence)


def name_error(error: OSError, entry: Entry) -> OSError:
    """The error for an entry that could not be made; another one if its name is refused.

    An SFTP server behind sshfs says EBADMSG for that, which elsewhere is about a damaged disk.
    """
    if error.errno not in (errno.EBADMSG, errno.EILSEQ, errno.EINVAL):
        return error
    sentence = f"{show(entry.path)}: the target's file system refuses this name: rename it"
    return NotHeld("NAME_NOT_POSSIBLE", sentence)


def check_entry(entry: Entry) -> None:
    """Raise if a source must not send such an entry: it leads out, or into a staging folder."""
    path = check_name(entry.path)
    if entry.kind == LINK and entry.size > MAX_LINK:
        raise AgentError("NAME_TOO_LONG", f"{show(path)} is a symlink with too long a text")
    if entry.kind == HARD_LINK:
        check_name(entry.link)


def check_name(path: str) -> str:
    """Return a path; raises if it is too long, leads out, or into a staging folder."""
    if len(check_path(path)) > MAX_PATH:
        raise AgentError("NAME_TOO_LONG", f"{show(path[:100])}… is too long a path")
    if STAGING_PREFIX in path and any(map(is_staging, path.split("/"))):
        raise AgentError("PATH_OUTSIDE_ROOT", f"{show(path)} lies in a transfer's own folder")
    return path


def make_folder(staging: Tree, path: str, mode: int = 0o700) -> None:
    """Make a folder of the staging tree and those above it; `FolderFinisher` gives it its mode.

    If an agent is killed before that, the folder has `mode`, less what the umask takes away.
    """
    # The folder may exist already, made for an entry below it or by another stream.
    with suppress(FileExistsError):
        try:
            above, name = staging.parent(path)
            os.mkdir(name, mode, dir_fd=above)
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
    """Remove one entry from the staging tree, if it is there."""
    if entry.kind == FOLDER:
        return
    try:
        folder, name = staging.parent(entry.path)
    except FileNotFoundError:
        return
    remove_tree(folder, name)


def made_as(fd: int) -> int:
    """The bits of a mode that a new file in a folder gets as it asks for them: 0o755, or 0 if not.

    A default ACL of the target's folder may take bits away, and so may a file system. The agent
    never tries this in the tree that is published: another stream may be counting its files.
    """
    name = f".{os.urandom(8).hex()}"
    probe = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=fd)
    try:
        return 0o755 if os.fstat(probe).st_mode & 0o777 == 0o755 else 0
    finally:
        os.close(probe)
        os.unlink(name, dir_fd=fd)


def refuse_shared(fd: int) -> int:
    """Return the descriptor of a staged file if it is plain and has one name; close it if not.

    Raises OSError (EMLINK) then: another name may lie where other programs see it.
    """
    found = os.fstat(fd)
    if found.st_nlink > 1 or not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
    return fd


def write_whole(fd: int, data: Any) -> None:
    """Write all bytes, in as many calls as that takes."""
    written = os.write(fd, data)
    while written < len(data):
        data = memoryview(data)[written:]
        written = os.write(fd, data)
