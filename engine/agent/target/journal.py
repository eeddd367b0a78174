"""The journal of a staging folder: for a later attempt, it says what has arrived and was proven.

A file of records, each a big-endian u32 length, the CRC-32 of the body, and the
body: a message as in `wire` (JSON, and after a NUL a blob). Records:

    {"start": attempt, "machine": id}    an attempt begins; the id changes with a reboot
    {"parcel": n, "list": size}          entries that were proven: a list of `size` bytes,
                                         then DIGEST bytes each (zeros: not proven)
    {"file": key, "upto": n}             a large file is proven up to byte n; digest up to there
    {"file": key, "slice": [at, size]}   a slice of a large file is proven; digest of the slice
    {"inside": 1, "list": size}          what the archive holds, as in "parcel"
    {"delivered": key}                   that archive is about to take its place, see
                                         `delivered_archive`; null: it never did
    {"durable": n}                       all records before byte n are about bytes on the disk
    {"void": [path, ...]}                these entries are not there any more

After a reboot only the records before a `durable` count: the bytes of the others may have been
in memory only. A record that a crash cut off ends the journal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import zlib
from contextlib import contextmanager

from engine.agent.target.locks import lock_if_any
from engine.agent.target.ownership import open_plain
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    DIGEST,
    MAX_ENTRIES,
    MAX_MESSAGE,
    NO_DIGEST,
    AgentError,
    Entry,
    count_of,
    decode,
    kinds_of,
    message,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

_NAME = "journal"
_HEAD = struct.Struct(">II")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_APPEND
#: A flush to the disk is due after so many bytes of payload, or so many seconds with new records.
DURABLE_BYTES, DURABLE_SECONDS = 48 << 20, 5.0
#: The most bytes of a record: a list of entries with digests, as in a message.
_MOST = MAX_MESSAGE
#: The most paths of a `void` record.
_VOIDS = 100


def file_key(entry: Entry) -> list[Any]:
    """A part of a file belongs to a file only if these values agree."""
    return [entry.path, entry.size, entry.mtime_ns, entry.ino]


class Journal:
    """The journal in a staging folder; several agents may write to it at the same time."""

    def __init__(self, folder: int, machine: str) -> None:
        self._fd = open_plain(folder, _NAME, _OPEN)
        self._machine = machine
        self._mutex = threading.Lock()
        self._added = threading.Condition()
        self._bytes = 0
        self._dirty = False
        self._flushing: Callable[[], None] | None = None

    def start(self, attempt: int) -> None:
        """Record that an attempt begins."""
        self.add({"start": attempt, "machine": self._machine})

    def add(self, body: dict[str, Any], blob: bytes = b"", worth: int = 0) -> None:
        """Append a record about `worth` bytes of payload."""
        data = message(body, blob)
        record = _HEAD.pack(len(data), zlib.crc32(data)) + data
        with self._alone():
            if os.write(self._fd, record) != len(record):
                raise AgentError(
                    "NO_SPACE",
                    "a record of the transfer's journal, in the staging folder, could not be "
                    "written as a whole",
                )
        with self._added:
            self._dirty = self._dirty or "durable" not in body
            self._bytes += worth
            if self._bytes >= DURABLE_BYTES:
                self._added.notify()

    def void(self, paths: list[str]) -> None:
        """Record that entries are not there any more."""
        for at in range(0, len(paths), _VOIDS):
            self.add({"void": paths[at : at + _VOIDS]})

    def keep_durable(self, flush: Callable[[], None]) -> None:
        """Start a thread that flushes to the disk from time to time, and records each flush."""
        if self._flushing is None:
            self._flushing = flush
            threading.Thread(target=self._flush, daemon=True).start()

    def _flush(self) -> None:
        while True:
            with self._added:
                # The bytes may have come while the last flush was under way.
                self._added.wait_for(lambda: self._bytes >= DURABLE_BYTES, DURABLE_SECONDS)
                self._bytes, dirty, self._dirty = 0, self._dirty, False
            if dirty:
                try:
                    self.make_durable()
                except (OSError, AgentError):
                    return  # The transfer meets the same trouble, and reports it.

    def make_durable(self) -> None:
        """Flush to the disk, and record that all bytes so far are there."""
        assert self._flushing
        with self._alone():
            size = os.fstat(self._fd).st_size
        self._flushing()
        self.add({"durable": size})

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the records that count, in order, each with its place (bytes).

        Removes a record that a crash cut off at the end.
        """
        with self._alone():
            end, flushed = self._survey()
            os.ftruncate(self._fd, end)
        machine = ""
        for at, body in self._read(end):
            if "start" in body:
                machine = body["machine"]
            if machine == self._machine or any(first <= at < last for first, last in flushed):
                yield at, body

    def record(self, at: int) -> dict[str, Any]:
        """Read the record at a place that `records` gave."""
        length, _ = _HEAD.unpack(os.pread(self._fd, _HEAD.size, at))
        return decode(os.pread(self._fd, length, at + _HEAD.size))

    def repair(self) -> None:
        """Remove a record that a crash cut off at the end, so that later ones can be read."""
        with self._alone():
            os.ftruncate(self._fd, self._survey()[0])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all other writers away: other agents, and other threads of this one.

        A record that another one is writing looks cut off, and must not be removed. O_APPEND
        alone keeps two writers apart on a local disk, but not on a network share.
        """
        with self._mutex:
            if self._fd < 0:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), _NAME)
            locked = lock_if_any(self._fd)
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _survey(self) -> tuple[int, list[tuple[int, int]]]:
        """Find where the last whole record ends, and the ranges of records that were flushed.

        A flush is about the bytes written since the machine was started, and no earlier ones.
        """
        end, since, machine = 0, 0, ""
        flushed: dict[int, int] = {}
        for at, body in self._read(os.fstat(self._fd).st_size):
            end = at + _HEAD.size + body["bytes"]
            if body.get("machine", machine) != machine:
                since, machine = at, body["machine"]
            if "durable" in body:
                flushed[since] = max(flushed.get(since, 0), body["durable"])
        return end, list(flushed.items())

    def _read(self, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
        at = 0
        while at + _HEAD.size <= size:
            length, crc = _HEAD.unpack(os.pread(self._fd, _HEAD.size, at))
            if length > min(_MOST, size - at - _HEAD.size):
                return
            data = os.pread(self._fd, length, at + _HEAD.size)
            if len(data) != length or zlib.crc32(data) != crc:
                return
            body = decode(data)
            body["bytes"] = length
            yield at, body
            at += _HEAD.size + length

    @staticmethod
    def proven(body: dict[str, Any], only: str = "") -> Iterator[tuple[Entry, bytes]]:
        """Yield the entries (`only` those of a kind) that a parcel's record proves, and digests.

        Raises AGENT_FAILED if its list is damaged, or longer than any parcel's.
        """
        blob, size = body["blob"], body["list"]
        listed = blob[:size]
        if count_of(listed) > MAX_ENTRIES:
            raise AgentError(
                "AGENT_FAILED", "protocol error: a list of entries is damaged or too long"
            )
        entries = unpack_entries(listed, only)  # First: it raises if the list is damaged.
        places = (at for at, kind in enumerate(kinds_of(blob)) if not only or kind == only)
        for index, entry in zip(places, entries):
            at = size + index * DIGEST
            digest = blob[at : at + DIGEST]
            if digest != NO_DIGEST:
                yield entry, digest

    def close(self) -> None:
        """Close the file; another thread's later records are refused."""
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
