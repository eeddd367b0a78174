"""The journal of a staging folder: what has arrived and was proven, for a later attempt.

A file of records, each a big-endian u32 length, the CRC-32 of the body, and the
body: a message as in `wire` (JSON, and after a NUL a blob). Records:

    {"start": attempt, "machine": id}    an attempt begins; the id changes with a reboot
    {"parcel": n, "list": size}          entries that were proven: a list of `size` bytes,
                                         then DIGEST bytes each (zeros: that one was not)
    {"file": key, "upto": n}             a large file is proven up to there; digest of it all
    {"file": key, "slice": [at, size]}   a slice of a large file is proven; digest of that
    {"inside": 1, "list": size}          what the archive holds, as in "parcel"
    {"delivered": key}                   that archive is about to take its place, see `delivered`;
                                         or, null, it never has
    {"durable": n}                       all records before byte n are about bytes on the disk
    {"void": [path, ...]}                these are not there any more

After a reboot only what comes before a `durable` counts: the rest may have been
in memory only. A record that was cut off by a crash ends the journal.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from engine.agent.wire import (
    DIGEST,
    NO_DIGEST,
    AgentError,
    Entry,
    decode,
    kinds_of,
    message,
    unpack_entries,
)

_NAME = "journal"
_HEAD = struct.Struct(">II")
_OPEN = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
#: A flush to the disk is due after so many bytes, or so many seconds with news.
DURABLE_BYTES, DURABLE_SECONDS = 48 << 20, 5.0
_MOST = 1 << 30


def file_key(entry: Entry) -> list[Any]:
    """What has to be the same for a part of a file to be a part of it."""
    return [entry.path, entry.size, entry.mtime_ns, entry.ino]


class Journal:
    """The journal in a staging folder; several agents may write to it at the same time."""

    def __init__(self, folder: int, machine: str) -> None:
        self._fd = os.open(_NAME, _OPEN, 0o600, dir_fd=folder)
        self._machine = machine
        self._mutex = threading.Lock()
        self._news = threading.Condition()
        self._bytes = 0
        self._dirty = False
        self._flushing: Callable[[], None] | None = None

    def start(self, attempt: int) -> None:
        """Say that an attempt begins."""
        self.add({"start": attempt, "machine": self._machine})

    def add(self, body: dict[str, Any], blob: bytes = b"", worth: int = 0) -> None:
        """Append a record about so many bytes of payload."""
        data = message(body, blob)
        record = _HEAD.pack(len(data), zlib.crc32(data)) + data
        with self._alone():
            if os.write(self._fd, record) != len(record):
                raise AgentError("NO_SPACE", "the journal of the transfer could not be written")
        with self._news:
            self._dirty = self._dirty or "durable" not in body
            self._bytes += worth
            if self._bytes >= DURABLE_BYTES:
                self._news.notify()

    def keep_durable(self, flush: Callable[[], None]) -> None:
        """From now on flush to the disk now and then, beside the work, and put that down."""
        if self._flushing is None:
            self._flushing = flush
            threading.Thread(target=self._flush, daemon=True).start()

    def _flush(self) -> None:
        while True:
            with self._news:
                # Also what came while the last flush went on.
                self._news.wait_for(lambda: self._bytes >= DURABLE_BYTES, DURABLE_SECONDS)
                self._bytes, dirty, self._dirty = 0, self._dirty, False
            if dirty:
                try:
                    self.make_durable()
                except (OSError, AgentError):
                    return  # The transfer meets the same trouble, and tells of it.

    def make_durable(self) -> None:
        """Flush to the disk, and put down that all of it so far is there."""
        assert self._flushing
        size = os.fstat(self._fd).st_size
        self._flushing()
        self.add({"durable": size})

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records that can be believed, each with its place, in order.

        What a crash cut off at the end is removed.
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
        """The record at a place that `records` gave."""
        length, _ = _HEAD.unpack(os.pread(self._fd, _HEAD.size, at))
        return decode(os.pread(self._fd, length, at + _HEAD.size))

    def repair(self) -> None:
        """Remove what a crash cut off at the end, so that what is added now can be read."""
        with self._alone():
            os.ftruncate(self._fd, self._survey()[0])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let nobody write meanwhile: no other agent, and no other thread of this one.

        What another just writes looks cut off, and must not be removed. And O_APPEND alone
        keeps two writers apart on a local disk, but not on a network share.
        """
        with self._mutex:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _survey(self) -> tuple[int, list[tuple[int, int]]]:
        """Where the last whole record ends, and from where to where all is on the disk.

        A flush tells of what was written since the machine was started, and of nothing before.
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
        """The entries, or `only` those of a kind, that a parcel's record proves, with digests."""
        blob, size = body["blob"], body["list"]
        entries = unpack_entries(blob[:size], only)  # First: it finds what is damaged.
        places = (at for at, kind in enumerate(kinds_of(blob)) if not only or kind == only)
        for index, entry in zip(places, entries):
            at = size + index * DIGEST
            digest = blob[at : at + DIGEST]
            if digest != NO_DIGEST:
                yield entry, digest

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
