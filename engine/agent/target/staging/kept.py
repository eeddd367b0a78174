"""Finds by trying what a file system keeps of a file: its times, its mode, locks on it.

Some keep times in steps (FAT: 2 s, NTFS: 100 ns, SFTP: 1 s), up to a year, or not at all. So an
empty file is made for a moment, under a name that no transfer carries, and given a time.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from engine.agent.target.locks import has_locks
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import staging_name
from engine.agent.write_access import accessed

if TYPE_CHECKING:
    from typing import Iterable

    from engine.agent.wire import Entry

_SECOND = 10**9
#: A time (ns) of the year 2004 that is rounded, however it is; steps, each of which may be a
#: file system's; the step from which on a time may be 2 s off: FAT has several.
_TRIED = 1_099_999_999_999_999_937
_STEPS: tuple[int, ...] = (*(10**digits for digits in range(1, 10)), 2 * _SECOND)
_COARSE = 10**7
_COARSE_NS: int = 2 * _SECOND
#: Times (ns) that every file system has: from 1980 to 2037.
_PLAIN = range(315_619_200 * _SECOND, 2_145_916_800 * _SECOND)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
#: A mode that no file system shows for all files.
_MODE = 0o640
#: Errors by which a file system says that it does not keep a time, or a mode, that it is given.
NOT_KEPT = (
    errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP,
    errno.EOVERFLOW,
)  # fmt: skip

#: By device: what `dates_links` found.
_dated: dict[int, bool] = {}
_NO_TIMES = (
    "the target's file system does not keep times: files keep none, and a later run compares them "
    "by content"
)
_ROUNDED = (
    "the target's file system keeps times in steps of {}: files get rounded times, and a later run "
    "compares them so"
)
_NO_MODES = (
    "the target's file system does not keep modes: files and folders have the one it gives them"
)
_NO_LOCKS = (
    "the target's file system has no locks (flock): of two runs of this transfer on different "
    "machines neither sees the other, and only the last one publishes"
)


class _Probe:
    """An empty file in an open folder, until `close`; the folder keeps its time.

    It has no name where the file system can do that (Linux: O_TMPFILE), so that a killed agent
    leaves none behind.
    """

    def __init__(self, folder: int) -> None:
        self._folder = os.dup(folder)
        self._name = ""
        self._before = os.fstat(folder)
        try:
            self.fd = self._open(folder)
        except OSError:
            os.close(self._folder)
            raise
        self._after = os.fstat(folder).st_mtime_ns

    def _open(self, folder: int) -> int:
        nameless = getattr(os, "O_TMPFILE", 0)
        if nameless:
            with suppress(OSError):
                return os.open(".", os.O_RDWR | nameless | os.O_CLOEXEC, 0o600, dir_fd=folder)
        self._name = staging_name(os.urandom(8).hex())
        return os.open(self._name, _NEW, 0o600, dir_fd=folder)

    def time(self, asked: int) -> int | None:
        """The time (ns) that the file has once it was given this one; None if it is refused."""
        try:
            os.utime(self.fd, ns=(asked, asked))
            return os.fstat(self.fd).st_mtime_ns
        except (OSError, OverflowError):
            return None

    def close(self) -> None:
        """Remove the file."""
        os.close(self.fd)
        if not self._name:
            os.close(self._folder)
            return
        alone = os.fstat(self._folder).st_mtime_ns == self._after
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
            if alone:
                before = (accessed(self._before), self._before.st_mtime_ns)
                os.utime(self._folder, ns=before)
        os.close(self._folder)


class KeptTimes:
    """Says if a time is what became of another one, by the file system of the file that has it.

    With `guess` it makes no file, and takes a round time for a rounded one.
    """

    def __init__(self, guess: bool = False) -> None:
        self._guess = guess
        #: By device: the step in which it keeps times (ns; 0: none), and the file to try with.
        self._steps: dict[int, int] = {}
        self._probes: dict[int, _Probe] = {}

    def fits(self, folder: int, device: int, asked: int, found: int) -> bool | None:
        """True if a file in the folder that was given a time may show the one that was found.

        None if the file system does not keep that time, so that nothing is known.
        """
        if self._guess:
            return abs(asked - found) < _tolerance(_step_of(found))
        step = self._steps.get(device)
        if step == 1 and asked in _PLAIN:
            return False
        probe = self._probe(folder, device)
        if probe is None:
            return False
        if step is None:
            step = self._steps[device] = step_of(probe)
            if step == 1 and asked in _PLAIN:
                return False
        became = probe.time(asked)
        if became == found:
            return True
        if became is None or abs(asked - became) >= _tolerance(step):
            return None  # Some keep a single time not: sshfs takes that of 1970 for now.
        return abs(asked - found) < _tolerance(step)

    def _probe(self, folder: int, device: int) -> _Probe | None:
        known = self._probes.get(device)
        if known is None:
            try:
                known = self._probes[device] = _Probe(folder)
            except OSError:  # Nothing can be tried where nothing can be made.
                self._steps[device] = 1
        return known

    def close(self) -> None:
        """Remove the files; what was found stays known."""
        while self._probes:
            self._probes.popitem()[1].close()


def has_size_and_time(folder: int, found: os.stat_result, entry: Entry) -> bool | None:
    """True if a file in a folder has the entry's size and time, as its file system keeps times.

    None if only the size is known to be the same, since no times are kept.
    """
    if found.st_size != entry.size or found.st_mtime_ns == entry.mtime_ns:
        return found.st_size == entry.size
    times = KeptTimes()
    try:
        return times.fits(folder, found.st_dev, entry.mtime_ns, found.st_mtime_ns)
    finally:
        times.close()


def step_of(probe: _Probe) -> int:
    """The step (ns) in which a file system keeps times; 1 if it keeps all, 0 if none."""
    found = probe.time(_TRIED)
    if found is None or abs(found - _TRIED) >= _COARSE_NS:
        return 0
    if found == _TRIED:
        return 1
    for step in _STEPS:
        if found % step == 0 and abs(found - _TRIED) < step:
            return step
    return _COARSE_NS


def _step_of(found: int) -> int:
    return max((step for step in _STEPS if found % step == 0), default=1)


def _tolerance(step: int) -> int:
    return _COARSE_NS if step >= _COARSE else max(step, 1)


def dates_links(folder: int) -> bool:
    """True if a symlink in an open folder can be given a time of its own; found once per device.

    sshfs gives it to what the link names, and the server follows the link, wherever it leads. So
    this tries with a link that leads to nothing.
    """
    device = os.fstat(folder).st_dev
    if device not in _dated:
        name = staging_name(os.urandom(8).hex())
        os.symlink(os.urandom(16).hex(), name, dir_fd=folder)
        try:
            os.utime(name, ns=(_TRIED, _TRIED), dir_fd=folder, follow_symlinks=False)
            _dated[device] = True
        except OSError:
            _dated[device] = False
        finally:
            os.unlink(name, dir_fd=folder)
    return _dated[device]


def notes(folder: int) -> list[list[str]]:
    """What the file system of an open folder does not keep: a code and a sentence for each."""
    probe = _Probe(folder)
    try:
        return [list(note) for note in _notes(probe)]
    finally:
        probe.close()


def _notes(probe: _Probe) -> Iterable[tuple[str, str]]:
    step = step_of(probe)
    if step == 0:
        yield "TIMES_NOT_KEPT", _NO_TIMES
    elif step > 1:
        yield "TIMES_ROUNDED", _ROUNDED.format(_shown(step))
    if not _keeps_mode(probe.fd):
        yield "MODES_NOT_KEPT", _NO_MODES
    if not has_locks(probe.fd):
        yield "NO_LOCKS", _NO_LOCKS


def _keeps_mode(fd: int) -> bool:
    try:
        os.fchmod(fd, _MODE)
    except OSError:
        return False
    return stat.S_IMODE(os.fstat(fd).st_mode) == _MODE


def _shown(step: int) -> str:
    for size, unit in ((_SECOND, "s"), (10**6, "ms"), (10**3, "µs")):
        if step >= size:
            return f"{step // size} {unit}"
    return f"{step} ns"
