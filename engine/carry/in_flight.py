"""ParcelInFlight: a parcel on its way, and the comparison of both ends' reports."""

from __future__ import annotations

from typing import Protocol

from engine.agent.typed import NamedTuple
from engine.agent.wire import (
    FILE,
    FOLDER,
    HARD_LINK,
    NO_DIGEST,
    Entry,
    count_of,
    pack_entries,
    unpack_entries,
)
from engine.parcels.builder import Parcel
from engine.protocol.digests import agree, all_agree, digest_at
from engine.protocol.fields import Failure
from engine.protocol.replies import ReceivedReply, SentReply
from engine.types import ParcelKind

#: How often an entry is sent while its digests differ, before the transfer fails.
TRIES = 3


class CarryObserver(Protocol):
    """Receives the reports of a carrier."""

    #: Number of entries, without folders, that were reported to `failed`.
    undelivered: int

    def started(self, parcel: Parcel) -> None: ...

    def failed(self, path: str, code: str, message: str) -> None: ...

    def moved(self, done_bytes: int, done_files: int) -> None: ...

    def verified(
        self, parcel: Parcel, entries: bytes, digests: bytes, count: tuple[int, int]
    ) -> None: ...

    def warned(self, code: str, message: str) -> None: ...


class SortedEntries(NamedTuple):
    """Entries that are not proven: failed for good, to discard at the target, to send again."""

    failed: list[tuple[Entry, Failure]]
    drop: list[Entry]
    again: list[Entry]


class ParcelInFlight:
    """One parcel on its way: the entries under way, and those that are proven."""

    def __init__(self, parcel: Parcel, blob: bytes) -> None:
        self.parcel, self.blob, self.kind = parcel, blob, parcel.kind
        self.tries = 0
        self.sent: SentReply | None = None
        self.received: ReceivedReply | None = None
        self.proven: list[tuple[bytes, bytes]] = []
        self.proven_bytes = self.moving_bytes = 0

    @property
    def digest_count(self) -> int:
        """The number of digests that a report of the parcel has: one for each entry, or slice."""
        if self.kind is ParcelKind.RANGE:
            return len(self.parcel.slices)
        return count_of(self.blob)

    def all_proven(self, sent: SentReply, received: ReceivedReply) -> bool:
        """True if all digests of both ends agree; then all entries are recorded as proven."""
        if sent.failures or received.failures:
            return False
        if not all_agree(sent.digests, received.digests, self.digest_count):
            return False
        self.proven.append((self.blob, sent.digests))
        # A later try sends only the entries that were not proven before.
        all_of_it = self.tries == 1 or self.parcel.start
        self.proven_bytes += self.parcel.bytes if all_of_it else count_entries(self.blob)[1]
        return True

    def all_that_is_proven(self) -> list[tuple[bytes, bytes]]:
        """Return the proven entries and their digests, as one list even after several tries."""
        if len(self.proven) < 2:
            return self.proven
        entries = [entry for blob, _ in self.proven for entry in unpack_entries(blob)]
        return [(pack_entries(entries), b"".join(digests for _, digests in self.proven))]

    def sort(self, sent: SentReply, received: SentReply | ReceivedReply) -> SortedEntries:
        """Record the proven entries, and sort the rest; `blob` keeps those to send again."""
        proven: list[Entry] = []
        digests: list[bytes] = []
        rest = SortedEntries([], [], [])
        for index, entry in enumerate(unpack_entries(self.blob)):
            one, other = digest_at(sent.digests, index), digest_at(received.digests, index)
            problem = sent.failures.get(index) or received.failures.get(index)
            if not problem and agree(one, other):
                proven.append(entry)
                digests.append(one)
                continue
            # Without a digest the receiver has kept nothing of the entry; on a case-folding
            # target, the file under its name is another entry.
            if other != NO_DIGEST and entry.kind != FOLDER:
                rest.drop.append(entry)
            if not problem:
                rest.again.append(entry)
            elif entry.kind == HARD_LINK:
                # The target has no first name to link it to: it is sent as a file.
                rest.again.append(entry._replace(kind=FILE, link=""))
            else:
                rest.failed.append((entry, problem))
        if proven:
            self.proven.append((pack_entries(proven), b"".join(digests)))
            self.proven_bytes += sum(entry.size for entry in proven if entry.kind != HARD_LINK)
        if self.kind is not ParcelKind.ARCHIVE:
            # The few entries that are sent again need no ZIP.
            self.kind, self.blob = ParcelKind.FILE, pack_entries(rest.again)
        return rest


def count_entries(blob: bytes) -> tuple[int, int]:
    """Return how many files a packed list has, and their bytes."""
    entries = unpack_entries(blob)
    files = sum(entry.kind != FOLDER for entry in entries)
    return files, sum(entry.size for entry in entries if entry.kind != HARD_LINK)
