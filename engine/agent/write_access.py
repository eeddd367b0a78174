"""Opening this user's own folders that forbid changes, for a moment, and putting them back.

An agent that is killed meanwhile must not leave a folder open for good. So before it opens a
folder, it records the folder's own mode: in a note in the staging folder (see `opened_folders`),
or, where there is no staging folder, in the folder itself, as a time of access in the year 2038
that stands for a mode.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from contextlib import contextmanager, suppress

from engine.agent.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Iterator

#: Access that lets names come and go in a folder.
CHANGE = os.W_OK | os.X_OK
#: Seconds since 1970; plus a mode, it is the time of access of an opened folder. Before 2038,
#: the limit of some file systems; in the future, so that reading does not change it.
_MARK = (1 << 31) - 1 - 8192
_SECOND = 10**9
#: Seconds to wait for another agent that has the same folder open.
_PATIENCE = 3.0
#: The same for all folders together: whoever may read a folder can hold its lock for ever. Then it
#: is tried once.
_PATIENCE_IN_ALL = 15.0
#: The seconds that this process has waited for them.
_waited = [0.0]
#: Bits of capabilities(7).
DAC_OVERRIDE, FOWNER, FSETID = 1, 3, 4


def mode_of(found: os.stat_result) -> int:
    """The mode of a folder: its own mode, even if a killed agent has left the folder open."""
    mode, recorded = stat.S_IMODE(found.st_mode), found.st_atime_ns // _SECOND - _MARK
    is_open = 0 <= recorded <= 0o7777 and mode == recorded | stat.S_IRWXU
    return recorded if is_open else mode


def is_left_open(found: os.stat_result) -> bool:
    """True if a folder shows that an agent has opened it, and not put it back."""
    return mode_of(found) != stat.S_IMODE(found.st_mode)


def accessed(found: os.stat_result) -> int:
    """The time of access of a folder in ns; its mtime if that time stands for a mode."""
    recorded = found.st_atime_ns // _SECOND - _MARK
    return found.st_mtime_ns if 0 <= recorded <= 0o7777 else found.st_atime_ns


def may(folder: int, how: int = CHANGE) -> bool:
    """True if this process may use an open folder so; by default, if it may change its names."""
    plain = os.access not in os.supports_effective_ids
    if os.access(".", how, dir_fd=folder, effective_ids=not plain):
        return True
    # Before glibc 2.33, access() answers for an ordinary user of that number.
    return os.geteuid() != 0 and is_capable(DAC_OVERRIDE)


def may_open(found: os.stat_result) -> bool:
    """True if this process can open a folder and restore its mode exactly."""
    if found.st_uid != os.geteuid():
        return False
    if not found.st_mode & stat.S_ISGID or found.st_gid in (os.getegid(), *os.getgroups()):
        return True
    return is_capable(FSETID)  # Without it, a change of the mode clears the set-group-ID bit.


def recover(folder: int) -> None:
    """Put an open folder back if a killed agent has left it open."""
    if is_left_open(os.fstat(folder)):
        with writable(folder):
            pass


@contextmanager
def writable(folder: int, how: int = CHANGE) -> Iterator[None]:
    """Let names come and go in an open folder, if this user owns it; then put it back.

    Puts it back even if a killed agent had left it open. For a moment only: other agents that do
    the same wait for this one's lock on the folder.
    """
    found = os.fstat(folder)
    ours = found.st_uid == os.geteuid()
    is_closed = not found.st_mode & stat.S_IWUSR or is_left_open(found)
    # Another user's is not opened, and its lock may be held by that user for ever.
    if not ours or (not is_closed and may(folder, how)):
        yield
        return
    with _locked(folder) as alone:
        found = os.fstat(folder)
        mode = mode_of(found)
        opened = alone and is_left_open(found)
        try:
            if not opened and not may(folder, how) and may_open(found):
                opened = True
                _set_times(folder, (_MARK + mode) * _SECOND, found.st_mtime_ns)
                set_mode(folder, mode | stat.S_IRWXU)
        except OSError:
            pass  # It cannot be opened: the operation in it will fail with its own error.
        try:
            yield
        finally:
            if opened:
                with suppress(FileNotFoundError):  # The folder may be removed by now.
                    _put_back(folder, mode, accessed(found))


def _put_back(folder: int, mode: int, accessed_ns: int) -> None:
    found = os.fstat(folder)
    if mode != stat.S_IMODE(found.st_mode) == mode | stat.S_IRWXU:
        set_mode(folder, mode)
    with suppress(OSError):  # Some file systems keep no time of access.
        _set_times(folder, accessed_ns, os.fstat(folder).st_mtime_ns)


@contextmanager
def _locked(folder: int) -> Iterator[bool]:
    """Lock a folder; False if another agent holds it for _PATIENCE. True where no locks are."""
    until = time.monotonic() + min(_PATIENCE, _PATIENCE_IN_ALL - _waited[0])
    locked = False
    while not locked:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                locked = True  # No locks there, or none on a folder that only lets pass.
            elif time.monotonic() >= until:
                break
            else:
                time.sleep(0.01)
                _waited[0] += 0.01
    try:
        yield locked
    finally:
        if locked:
            with suppress(OSError):
                fcntl.flock(folder, fcntl.LOCK_UN)


def set_mode(folder: int, mode: int) -> None:
    """Change the mode of an open folder, even one that is open for passing only."""
    try:
        os.fchmod(folder, mode)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        os.chmod(f"/proc/self/fd/{folder}", mode)


def _set_times(folder: int, accessed_ns: int, mtime_ns: int) -> None:
    try:
        os.utime(folder, ns=(accessed_ns, mtime_ns))
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        os.utime(f"/proc/self/fd/{folder}", ns=(accessed_ns, mtime_ns))


def is_capable(bit: int) -> bool:
    """True if this process has a capability."""
    if sys.platform != "linux":
        return os.geteuid() == 0
    try:
        with open("/proc/self/status") as lines:
            sets = [line.split()[1] for line in lines if line.startswith("CapEff:")]
    except OSError:
        return os.geteuid() == 0
    return bool(sets) and bool(int(sets[0], 16) >> bit & 1)
