"""RecordFile: the command line's own record of what was proven, in the user's state folder.

A file for each two places, `~/.local/state/ketter/<transfer id>-<places>`, in a folder that is
closed to other users. It has records, each three big-endian u32 (the bytes of a packed list of
entries, those of its digests, the CRC-32 of both), the list and the digests. The first that was
cut off ends the file. Nothing is flushed to the disk: what is not on record is read again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
from _blake2 import blake2b
from collections.abc import Callable, Iterator
from typing import Any

from engine.agent.wire import AgentError, Entry, unpack_entries
from engine.types import Endpoint, Request

#: Seconds between two writes. A transfer that ends earlier leaves the disk alone; of one that is
#: killed, the proofs of so many seconds are read again.
WRITE_EVERY = 1.0
#: Records that were not written to for so long (seconds) are removed: the transfer was given up.
KEPT_SECONDS = 30 * 86400
_HEAD = struct.Struct(">III")
#: Bytes that an entry and its digest take on record, at least.
_ENTRY_BYTES = 40
_PREFIX = "cli-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: An observer's `event`.
Event = Callable[[str, str, str, dict[str, Any]], None]


class RecordFile:
    """The record of one transfer: collects proofs, and writes them about once a second.

    Without a usable state folder there is no record, and the transfer goes on; it calls
    `on_event` only if it would have read the record.
    """

    def __init__(self, request: Request) -> None:
        places = repr([_named(request.source), _named(request.target)])
        digest = blake2b(places.encode(), digest_size=8).hexdigest()
        self._name = f"{request.transfer_id}-{digest}"
        self._goes_on = request.resume
        self.on_event: Event = lambda *_: None
        self._waiting: list[tuple[bytes, bytes]] = []
        self._due = time.monotonic() + WRITE_EVERY
        #: The open file; -1 before it is opened.
        self._fd = -1
        #: False if no more can be written.
        self._is_usable = True

    def add(self, entries: bytes, digests: bytes) -> None:
        """Keep proven entries until the next write."""
        self._waiting.append((entries, digests))
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write what was added, if WRITE_EVERY seconds have passed."""
        if self._waiting and time.monotonic() >= self._due:
            self._write()

    def most(self) -> int | None:
        """Return the number of entries on record, at most; None without a record."""
        try:
            self._open()
        except (OSError, ValueError):
            return None  # `known` says why.
        return os.fstat(self._fd).st_size // _ENTRY_BYTES or None

    def known(self) -> Iterator[tuple[list[Entry], bytes]]:
        """Yield what earlier runs of this transfer added, as far as it is undamaged."""
        try:
            self._open()
        except (OSError, ValueError) as error:
            self._is_usable = False
            sentence = "what had arrived is read again at both ends, for the record of it"
            sentence += f" on this machine cannot be used: {error}"
            self.on_event("warning", "NO_RECORD", sentence, {})
            return
        for entries, digests in _records(self._fd):
            with contextlib.suppress(AgentError):
                yield unpack_entries(entries), digests

    def end(self, error: BaseException | None) -> None:
        """End with the transfer: its record stays as long as what it staged at the target.

        `error` is the one that the transfer raised, if it did.
        """
        if error is not None and getattr(error, "kept", True):
            self._write()
        # A run that was refused has no record: that of the run that goes on beside it stays.
        elif error is None or self._fd >= 0:
            self._remove()

    def _remove(self) -> None:
        # Also if this run did not write it: an earlier one may have.
        with contextlib.suppress(OSError, ValueError):
            folder = _state_folder(make=False)
            try:
                os.unlink(self._name, dir_fd=folder)
            finally:
                os.close(folder)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._due = time.monotonic() + WRITE_EVERY
        if not waiting or not self._is_usable:
            return
        from zlib import crc32

        data = bytearray()
        for entries, digests in waiting:
            crc = crc32(digests, crc32(entries))
            data += _HEAD.pack(len(entries), len(digests), crc) + entries + digests
        try:
            self._open()
            # Nothing may follow a record that a full disk cut off.
            self._is_usable = os.write(self._fd, data) == len(data)
        except (OSError, ValueError):
            self._is_usable = False

    def _open(self) -> None:
        """Open the file; raises OSError or ValueError if it cannot be used."""
        if self._fd >= 0:
            return
        folder = _state_folder(make=True)
        try:
            _sweep(folder)
            if not self._goes_on:  # What an earlier run staged is cleared away.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._name, dir_fd=folder)
            fd = os.open(self._name, _FILE, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or not _is_private(found) or found.st_nlink != 1:
                raise ValueError(f"{self._name} in the state folder is not this user's alone")
            # So that what is added can be read.
            os.ftruncate(fd, _end_of_records(fd))
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd


def _named(place: Endpoint) -> tuple[str, ...]:
    host = (place.ssh.host, str(place.ssh.port), place.ssh.username) if place.ssh else ()
    return (place.root, place.path, *host)


def _records(fd: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield lists of entries and their digests; a damaged record is left out."""
    from zlib import crc32

    for at, list_size, size, crc in _heads(fd):
        data = os.pread(fd, size, at + _HEAD.size)
        if len(data) == size and crc32(data) == crc:
            yield data[:list_size], data[list_size:]


def _end_of_records(fd: int) -> int:
    end = 0
    for at, _, size, _ in _heads(fd):
        end = at + _HEAD.size + size
    return end


def _heads(fd: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield of each whole record its place, the list's size, both sizes together, the CRC."""
    at, end = 0, os.fstat(fd).st_size
    while at + _HEAD.size <= end:
        list_size, digests_size, crc = _HEAD.unpack(os.pread(fd, _HEAD.size, at))
        size = list_size + digests_size
        if not 0 < size <= end - at - _HEAD.size:
            return
        yield at, list_size, size, crc
        at += _HEAD.size + size


def _state_folder(make: bool) -> int:
    """Open Ketter's folder for the user's state; raises OSError or ValueError without one.

    It is that of the XDG base directory specification. Another user's, as HOME may be under sudo,
    is not used.
    """
    base, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME", "")
    if os.path.isabs(base):
        home = base
    elif os.path.isabs(home):
        base = os.path.join(home, ".local", "state")
    else:
        raise ValueError("neither HOME nor XDG_STATE_HOME names a folder")
    path = os.path.join(base, "ketter")
    if make:
        if os.path.exists(home) and os.stat(home).st_uid != os.geteuid():
            raise ValueError(f"{home} is another user's")
        os.makedirs(base, 0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    fd = os.open(path, _FOLDER)
    if not _is_private(os.fstat(fd)):
        os.close(fd)
        raise ValueError(f"{path} is not this user's alone: give it the mode 0700, or remove it")
    return fd


def _is_private(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _sweep(folder: int) -> None:
    """Remove the records of transfers that were given up."""
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                written = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
                if time.time() - written > KEPT_SECONDS:
                    os.unlink(name, dir_fd=folder)
