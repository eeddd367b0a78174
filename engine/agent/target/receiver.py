"""The receiving end: writes what comes into the staging tree and hashes what it writes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import partial
from typing import Any, Callable, NamedTuple

from engine.agent.incoming import Incoming, is_bare, is_hole
from engine.agent.inlet import Inlet, Payload
from engine.agent.journal import Journal, file_key
from engine.agent.stage import (
    check_entry,
    digest_file,
    discard,
    make_durable,
    make_folder,
    refuse_shared,
    write_whole,
)
from engine.agent.tree import Tree, check_path
from engine.agent.wire import (
    DIGEST,
    END_PARCEL,
    FOLDER,
    LINK,
    MARK,
    NO_DIGEST,
    TWIN,
    AgentError,
    Entry,
    explain,
    unpack_entries,
)
from engine.agent.zipstream import ZipReader

CHUNK = 1 << 20
#: Refused attributes that are named.
NAMED = 10
#: A file up to this size (bytes) that comes in an archive is looked at in one piece.
WHOLE = 4 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PART = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC

#: Called with the bytes of the parcel that have arrived so far.
Progress = Callable[[int], None]


class Ways(NamedTuple):
    """How a transfer wants things written."""

    readback: bool = False
    xattrs: bool = False
    special_bits: bool = False
    made_as: int = 0

    @property
    def mode_bits(self) -> int:
        """The bits of a mode that are taken over."""
        return 0o7777 if self.special_bits else 0o777


class Receiver:
    """Receives one parcel; remembers each entry's digest or what was wrong with it.

    `digests` are DIGEST bytes an entry (or slice), `errors` has code and
    sentence by index, `refused` names the attributes that could not be set.
    """

    def __init__(
        self, staging: Tree, target: Tree, journal: Journal, ways: Ways, progress: Progress
    ) -> None:
        self._staging, self._target = staging, target
        self._journal, self._ways = journal, ways
        #: The bits of a mode that a new file gets as they are asked for; none if that is not sure.
        self._made_as = ways.made_as
        self._progress = progress
        self._bytes = self._told = self._marked = 0
        self._entries: list[Entry] = []
        self.digests = bytearray()
        self.errors: dict[str, list[str]] = {}
        self.refused: list[str] = []
        self.refusals = 0

    def receive(self, inlet: Inlet, head: dict[str, Any]) -> None:
        """Write the parcel's entries; a full disk ends it, an odd name only that entry.

        What agrees with the sender's digests is put down in the journal.
        """
        blob = head["blob"]
        self._entries = unpack_entries(blob)
        for entry in self._entries:
            check_entry(entry)
        payload = Payload(inlet)
        if head["kind"] == "range":
            self._receive_slices(payload, self._entries[0], head["slices"])
            return
        self.digests = bytearray(DIGEST * len(self._entries))
        if head["kind"] == "zip":
            ended = self._receive_zip(payload, len(blob))
        else:
            ended = self._receive_plain(payload, head.get("starts", {}))
        self._settle(head["parcel"], blob, ended["blob"])

    def _settle(self, number: int, blob: bytes, theirs: bytes) -> None:
        size = self._bytes
        if self._ways.readback:
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
        self._journal.add(body, blob + bytes(proven), size - self._marked)

    def _read_back(self) -> None:
        """Replace the digests by those of what the medium holds."""
        make_durable(self._staging.fd)
        self._bytes = self._told = 0
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
        sha256 = hashlib.sha256
        while True:
            index = archive.member()
            if index is None:
                break
            entry = entries[index]
            if entry.size <= WHOLE:
                data = payload.exactly(entry.size)
                self._count(len(data))
                try:
                    self._store(entry, data)
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
            if entry.kind in (LINK, FOLDER, TWIN):
                self._short(index, entry, payload)
            else:
                self._long(index, entry, payload, start)
            ended = payload.step()
            if payload.kind == END_PARCEL:
                raise AgentError("BAD_ARCHIVE", "the parcel ends before its last entry")
            if "error" in ended:
                # The sender gave up on it; what came of it must not be published.
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
            self._store(entry, data)
            self._put(index, hashlib.sha256(data).digest())
        except OSError as error:
            self._fail(index, entry, error)

    def _long(self, index: int, entry: Entry, payload: Payload, start: int) -> None:
        """A file that is written as it comes; from `start` on, if an earlier attempt got so far."""
        left = entry.size - start
        try:
            folder, name = self._parent(entry.path)
            if start:
                fd = refuse_shared(os.open(name, _PART, dir_fd=folder))
            else:
                fd = os.open(name, _NEW, 0o600, dir_fd=folder)
        except OSError as error:
            self._fail(index, entry, error)
            self._drop(payload, left)
            return
        whole = False
        incoming = Incoming(fd, entry, start, payload, self._count, partial(self._mark, entry))
        try:
            incoming.take_up(start)
            whole = incoming.write()
            if whole:
                self._finish(fd, entry)
        except OSError as error:
            whole = False
            self._fail(index, entry, error)
            self._drop(payload, incoming.left)
        finally:
            # What an end of the stream has cut off stays: the journal says how much is proven.
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
        """Put down that a large file is proven up to here, if it is."""
        if ours == theirs:
            worth, self._marked = self._bytes - self._marked, self._bytes
            self._journal.add({"file": file_key(entry), "upto": at}, ours, worth)

    def _drop(self, payload: Payload, left: int) -> None:
        """Step over the content of an entry that cannot be written."""
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
            folder, name = self._parent(entry.path)
            fd = refuse_shared(os.open(name, _PART | os.O_CREAT, 0o600, dir_fd=folder))
            if os.fstat(fd).st_size != entry.size:
                os.ftruncate(fd, entry.size)
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
            # What came damaged may be there already: only what is bare can stay a hole.
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

    def _store(self, entry: Entry, data: Any) -> None:
        """Write one entry whose content is at hand.

        Without success nothing is left of it, and nothing that was there is touched:
        on a folding target the name may be that of another entry, which is proven.
        """
        if entry.kind == FOLDER:
            make_folder(self._staging, entry.path)
            return
        folder, name = self._parent(entry.path)
        if entry.kind == TWIN:
            self._link(folder, name, entry)
            return
        if entry.kind == LINK:
            os.symlink(bytes(data), os.fsencode(name), dir_fd=folder)
            times = (entry.mtime_ns, entry.mtime_ns)
            try:
                os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
            except OSError:
                discard(self._staging, entry)
                raise
            return
        mode = entry.mode & self._made_as  # What the umask would take away is given below.
        fd = os.open(name, _NEW, mode | 0o200, dir_fd=folder)
        try:
            if data:
                write_whole(fd, data)
            self._finish(fd, entry, mode | 0o200 if self._made_as else -1)
        except OSError:
            os.close(fd)
            discard(self._staging, entry)
            raise
        try:
            os.close(fd)
        except OSError:
            discard(self._staging, entry)
            raise

    def _link(self, folder: int, name: str, entry: Entry) -> None:
        """A further name of a file that has arrived before, or was at the target already."""
        wanted = (entry.size, entry.mtime_ns)
        for tree in (self._staging, self._target):
            try:
                above, first = tree.parent(check_path(entry.link))
                found = os.stat(first, dir_fd=above, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == wanted:
                os.link(first, name, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
                return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _finish(self, fd: int, entry: Entry, has_mode: int = -1) -> None:
        """Give a written file its attributes, mode and time."""
        if entry.meta and self._ways.xattrs:
            from engine.agent import xattrs  # Compiled on the host only where it is asked for.

            for refused in xattrs.apply(fd, entry.meta):
                self.refusals += 1
                if len(self.refused) < NAMED:
                    self.refused.append(f"{entry.path[-200:]}: {refused}")
            has_mode = -1  # An ACL may have changed it.
        mode = entry.mode & self._ways.mode_bits
        if mode != has_mode:
            os.fchmod(fd, mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _parent(self, path: str) -> tuple[int, str]:
        try:
            return self._staging.parent(path)
        except FileNotFoundError:
            make_folder(self._staging, path.rpartition("/")[0])
            return self._staging.parent(path)

    def _fail(self, index: int, entry: Entry, error: OSError) -> None:
        problem = explain(error, entry.path)
        if problem.code == "NO_SPACE":
            raise problem from error
        self.errors[str(index)] = [problem.code, str(problem)]

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes - self._told >= CHUNK:
            self._told = self._bytes
            self._progress(self._bytes)
