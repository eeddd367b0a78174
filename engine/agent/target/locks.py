"""Locks on files of the staging folder, and checks that a name still leads to an open file.

Some file systems have no locks (Lustre and NFS as many mount them, SMB). There an agent writes a
line into the lock file instead: its machine, its process and that one's start. Agents of one
machine see by it who is alive; of another machine's agent nothing is known, and `is_known` says
so. What keeps an older attempt from publishing there is the fence alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

from engine.agent.inspect import machine
from engine.agent.target.ownership import open_plain
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import AgentError

if TYPE_CHECKING:
    from typing import Iterator

#: Flags to open a file that holds nothing: a lock, or a request.
LOCK_FILE = os.O_RDWR | os.O_CREAT
#: Errors by which a file system says that it has no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
#: Bytes of a lock file's lines that are read, at most.
_MOST = 1 << 16

#: The lines of this process in lock files without locks, by descriptor: place and length.
_lines: dict[int, tuple[int, int]] = {}


def open_lock(folder: int, whose: str) -> int:
    """Open the lock file of an attempt ("2"), or of a helper in an attempt ("2-label")."""
    return open_plain(folder, f"a{whose}.lock", LOCK_FILE)


def request_end(folder: int, whose: str) -> None:
    """Ask the agents that share a lock to end."""
    os.close(open_plain(folder, f"a{whose}.end", LOCK_FILE))


def lock(fd: int, patience: float, how: int = fcntl.LOCK_EX) -> bool:
    """Lock a file against other agents; False if one holds it for `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if how == fcntl.LOCK_SH or not any(map(_lives, _holders(fd))):
                _sign(fd)
                return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.05)


def release(fd: int) -> None:
    """Give a lock up, and close its file."""
    place, size = _lines.pop(fd, (0, 0))
    if size:
        with suppress(OSError):  # The file may be removed by now.
            os.pwrite(fd, b"-" * (size - 1), place)
    os.close(fd)


def lock_if_any(fd: int) -> bool:
    """Wait for the lock of a file; False if its file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def has_locks(fd: int) -> bool:
    """True if the file system of an open file, on which there is no lock, has locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def are_missing() -> bool:
    """True if this agent holds locks that are none: nothing keeps others out."""
    return bool(_lines)


def is_known(fd: int) -> bool:
    """True if a lock that was taken shows that no agent of any machine had it."""
    return fd not in _lines or all(holder[0] == _here() for holder in _holders(fd))


def _sign(fd: int) -> None:
    if fd not in _lines:
        line = " ".join((_here(), str(os.getpid()), _start_of("self"))).encode() + b"\n"
        place = os.lseek(fd, 0, os.SEEK_END)
        os.pwrite(fd, line, place)
        _lines[fd] = (place, len(line))


def _holders(fd: int) -> Iterator[list[str]]:
    """Machine, process and start of all agents, but this one, that signed a lock file."""
    text = os.pread(fd, _MOST, 0).decode("ascii", "replace")
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] != str(os.getpid()):
            yield words


def _lives(holder: list[str]) -> bool:
    return holder[0] == _here() and _start_of(holder[1]) == holder[2]


def _here() -> str:
    """This machine, and in it the world of processes that this one sees."""
    try:
        world = os.readlink("/proc/self/ns/pid")
    except OSError:
        world = ""
    return f"{machine()}/{world}".replace(" ", "_")


def _start_of(process: str) -> str:
    """When a process began; another text if there is no such process any more."""
    try:
        with open(f"/proc/{process}/stat", "rb") as source:
            fields = source.read().rpartition(b")")[2].split()
    except OSError:
        return "-" if os.path.isdir("/proc/self") else _without_proc(process)
    return "-" if fields[0] == b"Z" else fields[19].decode()


def _without_proc(process: str) -> str:
    try:
        os.kill(os.getpid() if process == "self" else int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return "-"
    except OSError:
        pass  # Another user's process: the number is in use.
    return "lives"


def is_there(folder: int, name: str) -> bool:
    """True if a folder has an entry of that name, of any kind."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def leads_to(folder: int, name: str, fd: int) -> bool:
    """True if the name still leads to the open file."""
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def busy() -> AgentError:
    """The error for a second run of a transfer while the first one still runs."""
    return AgentError("TARGET_BUSY", "another run of this transfer is at work at the target")
