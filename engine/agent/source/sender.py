"""Sending a parcel: the source's agent reads entries, hashes them and writes to stdout."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib

from engine.agent.inodes import settle
from engine.agent.source.paced_writer import CHUNK, FrameWriter
from engine.agent.source.zip_writer import ZipWriter
from engine.agent.tree import OPEN_FILE, Tree, unchanged
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    DIGEST,
    END_ENTRY,
    END_PARCEL,
    FILE,
    FOLDER,
    HARD_LINK,
    HEAD,
    MARK,
    NO_DIGEST,
    AgentError,
    Entry,
    brief,
    explain,
    show,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any, Callable

#: A member of a zip parcel up to this size (bytes) is read whole, so its header has its CRC.
WHOLE = 4 << 20
#: Bytes between two marks in a large file, each with the digest so far: a killed transfer loses
#: at most so many bytes of the file.
MARK_BYTES = 16 << 20

_EMPTY = hashlib.sha256().digest()


class Sender:
    """Sends parcels; keeps each entry's digest, or its error.

    `digests` are DIGEST bytes for each entry; `errors` are code and sentence by index.
    """

    def __init__(self, tree: Tree, writer: FrameWriter) -> None:
        self._tree = tree
        self._out = writer
        self._corrupts = False
        self._zip: ZipWriter | None = None
        self._whole: Any = None
        self._buffer = memoryview(bytearray(CHUNK))
        self.digests = bytearray()
        self.errors: dict[str, list[str]] = {}
        #: True if a member of an archive was cut off, and filled up to its size.
        self.torn = False

    def send(
        self,
        head: dict[str, Any],
        blob: bytes,
        theirs: bytes = b"",
        inject_fault: str = "",
        last: bool = False,
    ) -> None:
        """Send one parcel: its head, its payload, its end.

        `head` goes to the receiver: kind, number, and for large files where to start (`starts`)
        or which `slices` come. `blob` is the list of entries, `theirs` the receiver's list if it
        has other names. With kind "archive" all parcels make one archive, which the `last` ends.
        """
        kind, entries = head["kind"], unpack_entries(blob)
        self.digests, self.errors, self.torn = bytearray(), {}, False
        self._corrupts = inject_fault == "flip-byte"
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
            # All its parcels are one archive, and are proven as one: by the digest of its bytes.
            if self._zip is None:
                self._whole = hashlib.sha256()
                self._out.on_write = self._whole.update
            archive = self._zip = self._zip or ZipWriter(self._out.write)
            self._out.corrupt_next_byte, self._corrupts = self._corrupts, False
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
            archive.add(entry, zlib.crc32(content), self._with_fault(content))
            return hashlib.sha256(content).digest()
        if entry.size > WHOLE:
            fd = self._open(entry)
            try:
                return self._long_member(fd, entry, archive)
            finally:
                os.close(fd)
        settle(entry.ino, entry.mtime_ns)
        folder, name = self._tree.parent(entry.link or entry.path)
        fd = _look_up(name, folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):  # What is read from a pipe is gone there.
                raise _changed(entry)
            data = _read_whole(fd, entry)
        finally:
            os.close(fd)
        archive.add(entry, zlib.crc32(data), self._with_fault(data) if self._corrupts else data)
        return hashlib.sha256(data).digest()

    def _long_member(self, fd: int, entry: Entry, archive: ZipWriter) -> bytes:
        archive.start(entry)
        crc, digest, left = 0, hashlib.sha256(), entry.size
        try:
            while left:
                data = self._read(fd, min(left, CHUNK), entry)
                crc = zlib.crc32(data, crc)
                digest.update(data)
                archive.content(self._with_fault(data))
                left -= len(data)
        finally:
            self.torn = self.torn or left > 0
            while left:  # Zeros, so that the member has the announced size.
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
            self._out.write(self._with_fault(content))
            return hashlib.sha256(content).digest()
        fd = self._open(entry)
        try:
            digest = hashlib.sha256()
            self._stream(fd, entry, digest, 0, start, lambda _: None)
            marked = start

            def pass_on(data: memoryview) -> None:
                nonlocal marked
                self._out.write(self._with_fault(data))
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
            self._out.write(self._with_fault(data))

        try:
            fd = self._open(entry)
        except (OSError, AgentError) as error:
            cause = explain(error, entry.path) if isinstance(error, OSError) else error
            for index in range(len(slices)):
                self._out.frame(END_ENTRY, {"error": self._fail(index, cause)}, NO_DIGEST)
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
        """Hash a file's bytes from its position, place `start`, to `end`, and pass them on."""
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
        """The content of an entry that is not a file: a symlink's text, nothing for others."""
        follow = entry.kind == FOLDER and entry.link
        folder, name = self._tree.parent(entry.link if follow else entry.path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if entry.kind == FOLDER:
            # A folder's time changes with the names in it.
            if not stat.S_ISDIR(found.st_mode):
                raise _changed(entry)
            return b""
        if entry.kind == HARD_LINK:
            return b""
        if not unchanged(entry, found):
            raise _changed(entry)
        return os.fsencode(os.readlink(name, dir_fd=folder))

    def _open(self, entry: Entry) -> int:
        settle(entry.ino, entry.mtime_ns)
        folder, name = self._tree.parent(entry.link or entry.path)
        fd = _look_up(name, folder)
        if not unchanged(entry, os.fstat(fd)):
            os.close(fd)
            raise _changed(entry)
        return fd

    def _fail(self, index: int, error: AgentError) -> list[str]:
        self.digests += NO_DIGEST
        self.errors[str(index)] = [error.code, brief(self.errors, str(error))]
        return self.errors[str(index)]

    def _with_fault(self, data: Any) -> Any:
        if not self._corrupts or not len(data):
            return data
        self._corrupts = False
        return bytes([data[0] ^ 1]) + bytes(data[1:])


def _look_up(name: str, folder: int) -> int:
    """Open a file to read it; once more if a share's server knows its old handle no more."""
    try:
        return os.open(name, OPEN_FILE, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        return os.open(name, OPEN_FILE, dir_fd=folder)


def _changed(entry: Entry) -> AgentError:
    return AgentError("SOURCE_CHANGED", f"{show(entry.path)} changed while it was transferred")


def _check_end(fd: int, entry: Entry) -> None:
    """Raise SOURCE_CHANGED unless the file ends here and is unchanged since the scan."""
    if os.read(fd, 1) or not unchanged(entry, os.fstat(fd)):
        raise _changed(entry)


def _read_whole(fd: int, entry: Entry) -> bytes:
    """Read a file; raises SOURCE_CHANGED unless it has exactly the announced bytes."""
    data = os.read(fd, entry.size + 1)
    while len(data) < entry.size:
        more = os.read(fd, entry.size + 1 - len(data))
        if not more:
            break
        data += more
    if len(data) != entry.size or not unchanged(entry, os.fstat(fd)):
        raise _changed(entry)
    return data
