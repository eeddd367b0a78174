"""The sending end: reads entries, hashes what it reads, writes the payload to stdout."""

from __future__ import annotations

import hashlib
import os
import select
import stat
import zlib
from typing import Any, Callable

from engine.agent.tree import Tree, unchanged
from engine.agent.wire import (
    DATA,
    END_ENTRY,
    END_PARCEL,
    FILE,
    FOLDER,
    HEADER,
    AgentError,
    EndOfStream,
    Entry,
    encode,
    explain,
    show,
    write_all,
)
from engine.agent.zipstream import ZipWriter

CHUNK = 1 << 20
#: In a zip parcel files up to this size (bytes) are read whole, so their CRC stands in the header.
WHOLE = 4 << 20

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Outlet:
    """Payload on its way out, cut into D frames."""

    def __init__(self, fd: int, control: int) -> None:
        self._fd = fd
        self._control = control
        self._pieces: list[bytes | memoryview] = []
        self._size = 0

    def write(self, *pieces: bytes | memoryview) -> None:
        """Queue pieces; they are copied or sent before this returns control over them."""
        for piece in pieces:
            if len(piece) >= CHUNK // 4:
                self.flush()
                self._send(piece)
            elif len(piece):
                self._pieces.append(bytes(piece))
                self._size += len(piece)
                if self._size >= CHUNK:
                    self.flush()

    def flush(self) -> None:
        """Send what is queued as one frame."""
        if self._size:
            data = b"".join(self._pieces)
            self._pieces, self._size = [], 0
            self._send(data)

    def frame(self, kind: bytes, message: dict[str, Any]) -> None:
        """Send a JSON frame after what is queued."""
        self.flush()
        self._write(encode(kind, message))

    def _send(self, data: bytes | memoryview) -> None:
        # Nobody speaks to a sender at work: input here is the worker hanging up.
        if select.select([self._control], [], [], 0)[0]:
            raise EndOfStream
        for at in range(0, len(data), CHUNK * 4):
            part = memoryview(data)[at : at + CHUNK * 4]
            self._write(HEADER.pack(DATA, len(part)), part)

    def _write(self, *pieces: bytes | memoryview) -> None:
        try:
            write_all(self._fd, *pieces)
        except BrokenPipeError:
            # The receiver is gone: why, it or its connection tells; no entry is to blame.
            raise EndOfStream from None


class Sender:
    """Sends one parcel and remembers each entry's digest or what was wrong with it."""

    def __init__(self, tree: Tree, outlet: Outlet, drill: str = "") -> None:
        self._tree = tree
        self._out = outlet
        self._flip = drill == "flip-byte"
        self.digests: list[str] = []
        self.errors: dict[str, list[str]] = {}

    def send(self, kind: str, entries: list[Entry]) -> None:
        """Send the entries as the parcel's kind says, then the end of the parcel."""
        one = self._zip_member if kind == "zip" else self._plain
        archive = ZipWriter(self._out.write)
        for index, entry in enumerate(entries):
            try:
                self.digests.append(one(entry, archive))
            except OSError as error:
                self._fail(index, explain(error, entry.path))
            except AgentError as error:
                self._fail(index, error)
            if kind != "zip":
                problem = self.errors.get(str(index))
                self._out.frame(END_ENTRY, {"error": problem} if problem else {})
        if kind == "zip":
            archive.close()
        self._out.frame(END_PARCEL, {})

    def _fail(self, index: int, error: AgentError) -> None:
        self.digests.append("")
        self.errors[str(index)] = [error.code, str(error)]

    def _zip_member(self, entry: Entry, archive: ZipWriter) -> str:
        if entry.kind != FILE:
            content = self._content_of(entry)
            archive.add(entry, zlib.crc32(content), content)
            return hashlib.sha256(content).hexdigest()
        fd = self._open(entry)
        try:
            if entry.size <= WHOLE:
                data = _read_whole(fd, entry)
                archive.add(entry, zlib.crc32(data), self._drilled(data))
                return hashlib.sha256(data).hexdigest()
            archive.start(entry)
            crc = [0]

            def pass_on(data: memoryview) -> None:
                crc[0] = zlib.crc32(data, crc[0])
                archive.content(self._drilled(data))

            try:
                return _read_in_chunks(fd, entry, pass_on, pad=True)
            finally:
                archive.finish(crc[0])
        finally:
            os.close(fd)

    def _plain(self, entry: Entry, _: ZipWriter) -> str:
        if entry.kind != FILE:
            content = self._content_of(entry)
            self._out.write(content)
            return hashlib.sha256(content).hexdigest()
        fd = self._open(entry)
        try:
            return _read_in_chunks(
                fd, entry, lambda data: self._out.write(self._drilled(data)), pad=False
            )
        finally:
            os.close(fd)

    def _content_of(self, entry: Entry) -> bytes:
        folder, name = self._tree.parent(entry.path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind == FOLDER:
            # Its time moves with what comes and goes in it.
            if not stat.S_ISDIR(found.st_mode):
                raise _changed(entry)
            return b""
        if not unchanged(entry, found):
            raise _changed(entry)
        return os.fsencode(os.readlink(name, dir_fd=folder))

    def _open(self, entry: Entry) -> int:
        folder, name = self._tree.parent(entry.path)
        fd = os.open(name, _OPEN, dir_fd=folder)
        if not unchanged(entry, os.fstat(fd)):
            os.close(fd)
            raise _changed(entry)
        return fd

    def _drilled(self, data: bytes | memoryview) -> bytes | memoryview:
        if not self._flip or not len(data):
            return data
        self._flip = False
        return bytes([data[0] ^ 1]) + bytes(data[1:])


def _changed(entry: Entry) -> AgentError:
    return AgentError("SOURCE_CHANGED", f"{show(entry.path)} changed while it was transferred")


def _read_whole(fd: int, entry: Entry) -> bytes:
    """The file's bytes, exactly as many as were announced and nothing after them."""
    data = os.read(fd, entry.size + 1)
    while len(data) < entry.size:
        more = os.read(fd, entry.size + 1 - len(data))
        if not more:
            break
        data += more
    if len(data) != entry.size or not unchanged(entry, os.fstat(fd)):
        raise _changed(entry)
    return data


def _read_in_chunks(fd: int, entry: Entry, pass_on: Callable[[memoryview], None], pad: bool) -> str:
    """Pass on the file's bytes and return their SHA-256.

    A file that turns out shorter, longer or touched raises SOURCE_CHANGED;
    with `pad` its missing bytes are made up first, to keep the stream in step.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    left = entry.size
    while left:
        try:
            got = os.readv(fd, [buffer[: min(left, CHUNK)]])
        except OSError:
            if pad:
                _pad(left, pass_on)
            raise
        if not got:
            break
        digest.update(buffer[:got])
        pass_on(buffer[:got])
        left -= got
    if left and pad:
        _pad(left, pass_on)
    if left or os.read(fd, 1) or not unchanged(entry, os.fstat(fd)):
        raise _changed(entry)
    return digest.hexdigest()


def _pad(left: int, pass_on: Callable[[memoryview], None]) -> None:
    zeros = memoryview(bytes(CHUNK))
    while left:
        pass_on(zeros[: min(left, CHUNK)])
        left -= min(left, CHUNK)
