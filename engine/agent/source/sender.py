"""The sending end: reads entries, hashes what it reads, writes the payload to stdout."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from typing import Any, Callable

from engine.agent.outlet import CHUNK, Outlet
from engine.agent.tree import OPEN_FILE, Tree, unchanged
from engine.agent.wire import (
    DIGEST,
    END_ENTRY,
    END_PARCEL,
    FILE,
    FOLDER,
    HEAD,
    MARK,
    NO_DIGEST,
    TWIN,
    AgentError,
    Entry,
    explain,
    show,
    unpack_entries,
)
from engine.agent.zipstream import ZipWriter

#: In a zip parcel files up to this size (bytes) are read whole, so their CRC stands in the header.
WHOLE = 4 << 20
#: In a large file the digest so far is told each time so many bytes have been sent: what a
#: killed transfer loses of it, at most.
MARK_BYTES = 16 << 20

_EMPTY = hashlib.sha256().digest()


class Sender:
    """Sends parcels; remembers each entry's digest or what was wrong with it.

    `digests` are DIGEST bytes an entry, `errors` has code and sentence by index.
    """

    def __init__(self, tree: Tree, outlet: Outlet) -> None:
        self._tree = tree
        self._out = outlet
        self._flip = False
        self._zip: ZipWriter | None = None
        self._whole: Any = None
        self._buffer = memoryview(bytearray(CHUNK))
        self.digests = bytearray()
        self.errors: dict[str, list[str]] = {}
        #: Whether a member of an archive was cut off: it had to be made up to its size.
        self.torn = False

    def send(
        self,
        head: dict[str, Any],
        blob: bytes,
        theirs: bytes = b"",
        drill: str = "",
        last: bool = False,
    ) -> None:
        """Send one parcel: its head, its payload, its end.

        `head` is what the receiver is told of it: kind, number, and for large
        files where to start (`starts`) or which `slices` to send. `blob` is the
        list of entries, `theirs` the receiver's list where it has other names.
        With kind "archive" all parcels make one archive, ended by the `last`.
        """
        kind, entries = head["kind"], unpack_entries(blob)
        self.digests, self.errors, self.torn = bytearray(), {}, False
        self._flip = drill == "flip-byte"
        self._out.frame(HEAD, head, theirs or blob)
        if kind == "range":
            self._slices(entries[0], head["slices"])
        elif kind == "file":
            self._plain(entries, head.get("starts", {}))
        else:
            self._archive(kind, entries, last)
        self._out.frame(END_PARCEL, {}, bytes(self.digests))

    # -- zip parcels -------------------------------------------------------

    def _archive(self, kind: str, entries: list[Entry], last: bool) -> None:
        if kind == "archive":
            # Its parcels are one archive, and proven as one: by the digest of its bytes.
            if self._zip is None:
                self._whole = hashlib.sha256()
                self._out.taste = self._whole.update
            archive = self._zip = self._zip or ZipWriter(self._out.write)
            self._out.spoil, self._flip = self._flip, False
        else:
            archive, last = ZipWriter(self._out.write), True
        for index, entry in enumerate(entries):
            try:
                self.digests += self._member(entry, archive)
            except OSError as error:
                self._fail(index, explain(error, entry.path))
            except AgentError as error:
                self._fail(index, error)
        if last:
            archive.close()
        self._out.flush()

    def archive_digest(self) -> str:
        """The SHA-256 of all bytes of the archive, once its last parcel was sent."""
        return str(self._whole.hexdigest())

    def _member(self, entry: Entry, archive: ZipWriter) -> bytes:
        if entry.kind != FILE:
            content = self._content_of(entry)
            archive.add(entry, zlib.crc32(content), self._drilled(content))
            return hashlib.sha256(content).digest()
        if entry.size > WHOLE:
            fd = self._open(entry)
            try:
                return self._long_member(fd, entry, archive)
            finally:
                os.close(fd)
        folder, name = self._tree.parent(entry.link or entry.path)
        fd = os.open(name, OPEN_FILE, dir_fd=folder)
        try:
            data = _read_whole(fd, entry)
        finally:
            os.close(fd)
        archive.add(entry, zlib.crc32(data), self._drilled(data) if self._flip else data)
        return hashlib.sha256(data).digest()

    def _long_member(self, fd: int, entry: Entry, archive: ZipWriter) -> bytes:
        archive.start(entry)
        crc, digest, left = 0, hashlib.sha256(), entry.size
        try:
            while left:
                data = self._read(fd, min(left, CHUNK), entry)
                crc = zlib.crc32(data, crc)
                digest.update(data)
                archive.content(self._drilled(data))
                left -= len(data)
        finally:
            self.torn = self.torn or left > 0
            while left:  # Made up, to keep the archive in step.
                data = memoryview(bytes(min(left, CHUNK)))
                crc = zlib.crc32(data, crc)
                archive.content(data)
                left -= len(data)
            archive.finish(crc)
        try:
            _check_end(fd, entry)
        except AgentError:
            self.torn = True
            raise
        return digest.digest()

    # -- plain files -------------------------------------------------------

    def _plain(self, entries: list[Entry], starts: dict[str, int]) -> None:
        for index, entry in enumerate(entries):
            problem: list[str] = []
            try:
                self.digests += self._file(entry, starts.get(str(index), 0))
            except OSError as error:
                problem = self._fail(index, explain(error, entry.path))
            except AgentError as error:
                problem = self._fail(index, error)
            self._out.frame(END_ENTRY, {"error": problem} if problem else {})

    def _file(self, entry: Entry, start: int) -> bytes:
        if entry.kind != FILE:
            content = self._content_of(entry)
            self._out.write(self._drilled(content))
            return hashlib.sha256(content).digest()
        fd = self._open(entry)
        try:
            digest = hashlib.sha256()
            self._stream(fd, entry, digest, 0, start, lambda _: None)
            marked = start

            def pass_on(data: memoryview) -> None:
                nonlocal marked
                self._out.write(self._drilled(data))
                here = os.lseek(fd, 0, os.SEEK_CUR)
                if here - marked >= MARK_BYTES and here < entry.size:
                    marked = here
                    self._out.frame(MARK, {"at": here}, digest.copy().digest())

            self._stream(fd, entry, digest, start, entry.size, pass_on)
            _check_end(fd, entry)
            return digest.digest()
        finally:
            os.close(fd)

    def _slices(self, entry: Entry, slices: list[list[int]]) -> None:
        def pass_on(data: memoryview) -> None:
            self._out.write(self._drilled(data))

        try:
            fd = self._open(entry)
        except (OSError, AgentError) as error:
            told = explain(error, entry.path) if isinstance(error, OSError) else error
            for index in range(len(slices)):
                self._out.frame(END_ENTRY, {"error": self._fail(index, told)}, NO_DIGEST)
            return
        try:
            for index, (offset, length) in enumerate(slices):
                digest = hashlib.sha256()
                os.lseek(fd, offset, os.SEEK_SET)
                problem: list[str] = []
                try:
                    self._stream(fd, entry, digest, offset, offset + length, pass_on)
                    if not unchanged(entry, os.fstat(fd)):
                        raise _changed(entry)
                    self.digests += digest.digest()
                except OSError as error:
                    problem = self._fail(index, explain(error, entry.path))
                except AgentError as error:
                    problem = self._fail(index, error)
                body = {"error": problem} if problem else {}
                self._out.frame(END_ENTRY, body, bytes(self.digests[-DIGEST:]))
        finally:
            os.close(fd)

    def _stream(
        self,
        fd: int,
        entry: Entry,
        digest: Any,
        start: int,
        end: int,
        pass_on: Callable[[memoryview], None],
    ) -> None:
        """Hash and pass on the file's bytes from where it is read to `end`."""
        left = end - start
        while left:
            data = self._read(fd, min(left, CHUNK), entry)
            digest.update(data)
            pass_on(data)
            left -= len(data)

    # -- both --------------------------------------------------------------

    def _read(self, fd: int, most: int, entry: Entry) -> memoryview:
        got = os.readv(fd, [self._buffer[:most]])
        if not got:
            raise _changed(entry)
        return self._buffer[:got]

    def _content_of(self, entry: Entry) -> bytes:
        """The content of what is no file: a symlink's target, nothing for a folder."""
        follow = entry.kind == FOLDER and entry.link
        folder, name = self._tree.parent(entry.link if follow else entry.path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind == FOLDER:
            # Its time moves with what comes and goes in it.
            if not stat.S_ISDIR(found.st_mode):
                raise _changed(entry)
            return b""
        if entry.kind == TWIN:
            return b""
        if not unchanged(entry, found):
            raise _changed(entry)
        return os.fsencode(os.readlink(name, dir_fd=folder))

    def _open(self, entry: Entry) -> int:
        folder, name = self._tree.parent(entry.link or entry.path)
        fd = os.open(name, OPEN_FILE, dir_fd=folder)
        if not unchanged(entry, os.fstat(fd)):
            os.close(fd)
            raise _changed(entry)
        return fd

    def _fail(self, index: int, error: AgentError) -> list[str]:
        self.digests += NO_DIGEST
        self.errors[str(index)] = [error.code, str(error)]
        return self.errors[str(index)]

    def _drilled(self, data: Any) -> Any:
        if not self._flip or not len(data):
            return data
        self._flip = False
        return bytes([data[0] ^ 1]) + bytes(data[1:])


def _changed(entry: Entry) -> AgentError:
    return AgentError("SOURCE_CHANGED", f"{show(entry.path)} changed while it was transferred")


def _check_end(fd: int, entry: Entry) -> None:
    """SOURCE_CHANGED unless the file ends here and is still the one that was scanned."""
    if os.read(fd, 1) or not unchanged(entry, os.fstat(fd)):
        raise _changed(entry)


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
