"""The receiving end: writes what comes into the staging tree and hashes what it writes."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import Any, BinaryIO, Callable

from engine.agent.tree import Tree, check_path, remove_tree
from engine.agent.wire import (
    DATA,
    END_ENTRY,
    END_PARCEL,
    FOLDER,
    LINK,
    AgentError,
    Entry,
    decode,
    explain,
    read_exactly,
    read_header,
)
from engine.agent.zipstream import ZipReader

CHUNK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DROP_CACHE = getattr(os, "posix_fadvise", None)

#: Called with the bytes and entries received so far.
Progress = Callable[[int, int], None]


class Parcel:
    """The payload of one parcel as it comes in, frame by frame."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._held = memoryview(b"")
        self.ended: dict[str, Any] | None = None

    def take(self, most: int) -> memoryview:
        """Between 1 and `most` bytes of payload; none when another kind of frame came."""
        if not self._held and self.ended is None:
            kind, size = read_header(self._stream)
            body = read_exactly(self._stream, size)
            if kind == DATA:
                self._held = memoryview(body)
            elif kind in (END_ENTRY, END_PARCEL):
                self.ended = dict(decode(body), parcel=kind == END_PARCEL)
            else:
                raise AgentError("AGENT_FAILED", "a command came in the middle of a parcel")
        part, self._held = self._held[:most], self._held[most:]
        return part

    def exactly(self, size: int) -> bytes:
        """That many bytes of payload, in one piece."""
        first = self.take(size)
        if len(first) == size:
            return bytes(first)
        pieces, left = [first], size - len(first)
        while left:
            piece = self.take(left)
            if not piece:
                raise AgentError("BAD_ARCHIVE", "the payload ends too early")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def end_of_entry(self) -> dict[str, Any]:
        """Step over the end of an entry, dropping payload before it."""
        while self.ended is None:
            self.take(CHUNK)
        ended, self.ended = self.ended, None
        return ended

    def drain(self) -> None:
        """Step over all that is left of the parcel."""
        while not self.end_of_entry()["parcel"]:
            pass


class Receiver:
    """Receives one parcel and remembers each entry's digest or what was wrong with it."""

    def __init__(self, staging: Tree, progress: Progress) -> None:
        self._staging = staging
        self._progress = progress
        self._bytes = 0
        self.digests: list[str] = []
        self.errors: dict[str, list[str]] = {}

    def receive(self, stream: BinaryIO, kind: str, entries: list[Entry]) -> None:
        """Write the parcel's entries; a full disk ends it, an odd name only that entry."""
        for entry in entries:
            check_path(entry.path)
        self.digests = [""] * len(entries)
        parcel = Parcel(stream)
        if kind == "zip":
            self._receive_zip(parcel, entries)
        else:
            self._receive_plain(parcel, entries)

    def read_back(self, entries: list[Entry]) -> None:
        """Replace the digests by those of what the medium holds; it must be durable already."""
        for index, entry in enumerate(entries):
            if not self.digests[index]:
                continue
            try:
                self.digests[index] = digest_file(self._staging, entry, self._progress, medium=True)
            except OSError as error:
                problem = explain(error, entry.path)
                self.errors[str(index)] = [problem.code, str(problem)]

    def _receive_zip(self, parcel: Parcel, entries: list[Entry]) -> None:
        archive = ZipReader(parcel.exactly, entries)
        while True:
            index = archive.member()
            if index is None:
                break
            self._write(index, entries[index], parcel)
            archive.member_done()
        parcel.drain()

    def _receive_plain(self, parcel: Parcel, entries: list[Entry]) -> None:
        for index, entry in enumerate(entries):
            self._write(index, entry, parcel)
            ended = parcel.end_of_entry()
            if ended["parcel"]:
                raise AgentError("BAD_ARCHIVE", "the parcel ends before its last entry")
            if "error" in ended:
                # The sender gave up on it; what came of it must not be published.
                self._undo(index, entry)
        if not parcel.end_of_entry()["parcel"]:
            raise AgentError("BAD_ARCHIVE", "the parcel holds more than was announced")

    def _undo(self, index: int, entry: Entry) -> None:
        self.errors.pop(str(index), None)
        if self.digests[index]:
            self.digests[index] = ""
            discard(self._staging, entry)

    def _write(self, index: int, entry: Entry, parcel: Parcel) -> None:
        digest = hashlib.sha256()
        left = [entry.size]

        def content(most: int) -> memoryview:
            part = parcel.take(min(most, left[0])) if left[0] else memoryview(b"")
            left[0] -= len(part)
            self._bytes += len(part)
            digest.update(part)
            self._progress(self._bytes, index)
            return part

        try:
            whole = self._store(entry, content)
        except OSError as error:
            problem = explain(error, entry.path)
            if problem.code == "NO_SPACE":
                raise problem from error
            self.errors[str(index)] = [problem.code, str(problem)]
            while left[0] and content(CHUNK):
                pass
            return
        if whole:
            self.digests[index] = digest.hexdigest()

    def _store(self, entry: Entry, content: Callable[[int], memoryview]) -> bool:
        """Write one entry; False if its content ended before its size.

        Without success nothing is left of it, and nothing that was there is touched:
        on a folding target the name may be that of another entry, which is proven.
        """
        if entry.kind == FOLDER:
            make_folder(self._staging, entry.path)
            return True
        folder, name = self._parent(entry.path)
        if entry.kind == LINK:
            link = b""
            while len(link) < entry.size:
                part = content(entry.size)
                if not part:
                    return False
                link += part
            os.symlink(link, os.fsencode(name), dir_fd=folder)
            times = (entry.mtime_ns, entry.mtime_ns)
            try:
                os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
            except OSError:
                discard(self._staging, entry)
                raise
            return True
        fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        whole = False
        try:
            whole = _fill(fd, entry, content)
        finally:
            try:
                os.close(fd)  # Some file systems say only now that the disk is full.
            except OSError:
                whole = False
                raise
            finally:
                if not whole:
                    discard(self._staging, entry)
        return whole

    def _parent(self, path: str) -> tuple[int, str]:
        try:
            return self._staging.parent(path)
        except FileNotFoundError:
            make_folder(self._staging, path.rpartition("/")[0])
            return self._staging.parent(path)


def _fill(fd: int, entry: Entry, content: Callable[[int], memoryview]) -> bool:
    left = entry.size
    while left:
        part = content(CHUNK)
        if not part:
            return False
        left -= len(part)
        while part:
            part = part[os.write(fd, part) :]
    os.fchmod(fd, entry.mode & 0o777)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    return True


def make_folder(staging: Tree, path: str) -> None:
    """Make a folder of the staging tree and those above it, open to us until it is finished."""
    # It may have been made for an entry below it, or by another stream.
    with suppress(FileExistsError):
        try:
            above, name = staging.parent(path)
            os.mkdir(name, 0o700, dir_fd=above)
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
    """Take one entry out of the staging tree, if it is there."""
    if entry.kind == FOLDER:
        return
    try:
        folder, name = staging.parent(entry.path)
    except FileNotFoundError:
        return
    remove_tree(folder, name)


def digest_file(tree: Tree, entry: Entry, progress: Progress, medium: bool) -> str:
    """The SHA-256 of an entry as it is now.

    With `medium` a file is dropped from the page cache first, where the platform
    can (Linux), so that the bytes come from the disk; they must be durable already.
    """
    folder, name = tree.parent(entry.path)
    if entry.kind == FOLDER:
        return hashlib.sha256(b"").hexdigest()
    if entry.kind == LINK:
        return hashlib.sha256(os.fsencode(os.readlink(name, dir_fd=folder))).hexdigest()
    digest, done = hashlib.sha256(), 0
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        if medium and _DROP_CACHE is not None:
            _DROP_CACHE(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        buffer = memoryview(bytearray(CHUNK))
        while True:
            got = os.readv(fd, [buffer])
            if not got:
                return digest.hexdigest()
            digest.update(buffer[:got])
            done += got
            progress(done, 0)
    finally:
        os.close(fd)
