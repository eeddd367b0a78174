"""Receiving a parcel: the target's agent writes what comes and hashes what it writes."""

from __future__ import annotations

import hashlib
import os
from functools import partial

from engine.agent.digests import digest_file, make_tree_durable
from engine.agent.reader import FrameReader, Payload
from engine.agent.target.incoming_file import IncomingFile, is_bare, is_hole
from engine.agent.target.journal import Journal, file_key
from engine.agent.target.staged_files import (
    EntryWriter,
    NotHeld,
    WriteOptions,
    check_entry,
    discard,
    extend,
    refuse_shared,
    write_whole,
)
from engine.agent.target.zip_reader import ZipReader
from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import (
    DIGEST,
    END_PARCEL,
    FOLDER,
    HARD_LINK,
    LINK,
    MARK,
    NO_DIGEST,
    AgentError,
    Entry,
    brief,
    explain,
    unpack_entries,
)

if TYPE_CHECKING:
    from typing import Any, Callable

    #: Called with the bytes of the parcel that have arrived so far.
    Progress = Callable[[int], None]

CHUNK = 1 << 20
#: A member of a zip parcel up to this size (bytes) is read into memory in one piece.
WHOLE = 4 << 20
_PART = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Receiver:
    """Receives one parcel; keeps each entry's digest, or its error.

    `digests` are DIGEST bytes for each entry (or slice); `errors` are code and sentence by the
    entry's index; `writer` counts the attributes that the file system refused.
    """

    def __init__(
        self,
        staging: Tree,
        target: Tree,
        journal: Journal,
        options: WriteOptions,
        progress: Progress,
    ) -> None:
        self._staging, self._journal, self._options = staging, journal, options
        self._progress = progress
        #: Bytes that came; of these, as of the last report, and as of the last record.
        self._bytes = self._reported = self._recorded = 0
        self._entries: list[Entry] = []
        self.writer = EntryWriter(staging, target, options)
        self.digests = bytearray()
        self.errors: dict[str, list[str]] = {}

    def receive(self, reader: FrameReader, head: dict[str, Any]) -> None:
        """Write the parcel's entries; a full disk ends it, an impossible name only that entry.

        Records in the journal the entries whose digests agree with the sender's.
        """
        blob = head["blob"]
        self._entries = unpack_entries(blob)
        for entry in self._entries:
            check_entry(entry)
        payload = Payload(reader)
        if head["kind"] == "range":
            self._receive_slices(payload, self._entries[0], head["slices"])
            return
        self.digests = bytearray(DIGEST * len(self._entries))
        if head["kind"] == "zip":
            ended = self._receive_zip(payload, len(blob))
        else:
            ended = self._receive_plain(payload, head.get("starts", {}))
        self._record(head["parcel"], blob, ended["blob"])

    def _record(self, number: int, blob: bytes, theirs: bytes) -> None:
        """Record the parcel with the digests on which the sender (`theirs`) and this end agree."""
        size = self._bytes
        if self._options.readback:
            self._read_back()
        proven = self.digests
        if len(theirs) != len(proven):
            raise AgentError("BAD_ARCHIVE", "the parcel ends without the digests of its entries")
        if proven != theirs:
            pairs = (
                (bytes(proven[at : at + DIGEST]), theirs[at : at + DIGEST])
                for at in range(0, len(theirs), DIGEST)
            )
            proven = bytearray(b"".join(a if a == b else NO_DIGEST for a, b in pairs))
        body = {"parcel": number, "list": len(blob)}
        self._journal.add(body, blob + bytes(proven), size - self._recorded)

    def _read_back(self) -> None:
        """Replace the digests by those of the bytes that the medium holds."""
        make_tree_durable(self._staging)
        self._bytes = self._reported = 0
        for index, entry in enumerate(self._entries):
            at = index * DIGEST
            if self.digests[at : at + DIGEST] == NO_DIGEST:
                continue
            try:
                digest = digest_file(self._staging, entry, self._count, medium=True)
            except OSError as error:
                self._fail(index, entry, error)
                digest = NO_DIGEST
            self._put(index, digest)

    # -- zip parcels -------------------------------------------------------

    def _receive_zip(self, payload: Payload, list_size: int) -> dict[str, Any]:
        archive = ZipReader(payload.exactly, self._entries)
        entries = self._entries
        sha256, write = hashlib.sha256, self.writer.write
        while True:
            index = archive.member()
            if index is None:
                break
            entry = entries[index]
            if entry.size <= WHOLE:
                data = payload.exactly(entry.size)
                self._count(len(data))
                try:
                    write(entry, data)
                    self._put(index, sha256(data).digest())
                except OSError as error:
                    self._fail(index, entry, error)
            else:
                self._long(index, entry, payload, 0)
            archive.member_done()
        # The directory names each member again, with less than 200 bytes about it.
        return payload.step(2 * list_size + 200 * len(entries) + 1024)

    # -- plain files -------------------------------------------------------

    def _receive_plain(self, payload: Payload, starts: dict[str, int]) -> dict[str, Any]:
        for index, entry in enumerate(self._entries):
            start = starts.get(str(index), 0)
            if entry.kind in (LINK, FOLDER, HARD_LINK):
                self._short(index, entry, payload)
            else:
                self._long(index, entry, payload, start)
            ended = payload.step()
            if payload.kind == END_PARCEL:
                raise AgentError("BAD_ARCHIVE", "the parcel ends before its last entry")
            if "error" in ended:
                # The sender gave up on the entry; the part that came must not be published.
                self.errors.pop(str(index), None)
                self._put(index, NO_DIGEST)
                discard(self._staging, entry)
        ended = payload.step()
        if payload.kind != END_PARCEL:
            raise AgentError("BAD_ARCHIVE", "the parcel holds more than was announced")
        return ended

    def _short(self, index: int, entry: Entry, payload: Payload) -> None:
        data, size = b"", entry.size if entry.kind == LINK else 0
        while len(data) < size:
            part = payload.some(size - len(data))
            if not part:
                return
            data += part
        try:
            self.writer.write(entry, data)
            self._put(index, hashlib.sha256(data).digest())
        except OSError as error:
            self._fail(index, entry, error)

    def _long(self, index: int, entry: Entry, payload: Payload, start: int) -> None:
        """Write a file as it comes, from byte `start` on if an earlier attempt got so far."""
        left = entry.size - start
        try:
            folder, name = self.writer.parent(entry.path)
            if start:
                fd = refuse_shared(os.open(name, _PART, dir_fd=folder))
            else:
                fd = self.writer.make(name, entry, 0o600, folder)
        except OSError as error:
            self._fail(index, entry, error)
            self._drop(payload, left)
            return
        whole = False
        incoming = IncomingFile(fd, entry, start, payload, self._count, partial(self._mark, entry))
        try:
            incoming.take_up(start)
            self.writer.reserve(fd, entry.size)
            whole = incoming.write()
            if whole:
                self.writer.finish(fd, entry)
        except OSError as error:
            whole = False
            self._fail(index, entry, error)
            self._drop(payload, incoming.left)
        finally:
            # A part that the end of the stream cuts off stays: the journal says what is proven.
            try:
                os.close(fd)  # Some file systems say only now that the disk is full.
            except OSError as error:
                whole = False
                self._fail(index, entry, error)
        if whole:
            self._put(index, incoming.digest.digest())
        else:
            discard(self._staging, entry)

    def _put(self, index: int, digest: bytes) -> None:
        self.digests[index * DIGEST : (index + 1) * DIGEST] = digest

    def _mark(self, entry: Entry, at: int, ours: bytes, theirs: bytes) -> None:
        """Record that a large file is proven up to byte `at`, if both ends' digests agree."""
        if ours == theirs:
            worth, self._recorded = self._bytes - self._recorded, self._bytes
            self._journal.add({"file": file_key(entry), "upto": at}, ours, worth)

    def _drop(self, payload: Payload, left: int) -> None:
        """Read the content of an entry that cannot be written, and drop it."""
        while left:
            part = payload.some(min(left, CHUNK))
            if not part:
                if payload.kind != MARK:
                    return
                payload.step()
            left -= len(part)

    # -- slices ------------------------------------------------------------

    def _receive_slices(self, payload: Payload, entry: Entry, slices: list[list[int]]) -> None:
        fd = -1
        try:
            folder, name = self.writer.parent(entry.path)
            fd = refuse_shared(os.open(name, _PART | os.O_CREAT, 0o600, dir_fd=folder))
            if os.fstat(fd).st_size != entry.size:  # The first of its parcels.
                self.writer.reserve(fd, entry.size)
                extend(fd, entry.size)
        except OSError as error:
            self._fail(0, entry, error)
        try:
            for offset, length in slices:
                if not 0 <= offset <= offset + length <= entry.size:
                    raise AgentError("BAD_ARCHIVE", "a slice lies outside its file")
                self.digests += self._slice(fd, entry, payload, offset, length)
            payload.step()
            if payload.kind != END_PARCEL:
                raise AgentError("BAD_ARCHIVE", "the parcel holds more than was announced")
        finally:
            if fd >= 0:
                os.close(fd)

    def _slice(self, fd: int, entry: Entry, payload: Payload, offset: int, length: int) -> bytes:
        digest, left = hashlib.sha256(), length
        while left:
            part = payload.some(min(left, CHUNK))
            if not part:
                break
            self._count(len(part))
            digest.update(part)
            at = offset + length - left
            left -= len(part)
            # An earlier, damaged slice may lie there: only where nothing lies can zeros be a hole.
            if fd >= 0 and not self.errors and not (is_hole(part) and is_bare(fd, at, len(part))):
                try:
                    os.lseek(fd, at, os.SEEK_SET)
                    write_whole(fd, part)
                except OSError as error:
                    self._fail(0, entry, error)
        ended = payload.step()
        if payload.kind == END_PARCEL:
            raise AgentError("BAD_ARCHIVE", "the parcel ends before its last slice")
        ours = digest.digest()
        if left or "error" in ended or self.errors:
            return NO_DIGEST
        if ours == ended["blob"]:
            body = {"file": file_key(entry), "slice": [offset, length]}
            self._journal.add(body, ours, length)
        return ours

    # -- all ---------------------------------------------------------------

    def _fail(self, index: int, entry: Entry, error: OSError) -> None:
        """Keep an entry's error; raises NO_SPACE if the disk is full, which ends the parcel."""
        problem = error.problem if isinstance(error, NotHeld) else explain(error, entry.path)
        if problem.code == "NO_SPACE":
            raise problem from error
        self.errors[str(index)] = [problem.code, brief(self.errors, str(problem))]

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes - self._reported >= CHUNK:
            self._reported = self._bytes
            self._progress(self._bytes)
