"""A parcel on its way, and what both ends say of it held against each other."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.agent.wire import (
    DIGEST,
    FILE,
    FOLDER,
    NO_DIGEST,
    TWIN,
    Entry,
    pack_entries,
    unpack_entries,
)
from engine.hub import Message
from engine.plan import LargeFile, Parcel
from engine.types import ParcelKind


class Watcher(Protocol):
    """Who is told how the carrying goes."""

    def started(self, parcel: Parcel) -> None: ...

    def failed(self, path: str, code: str, message: str) -> None: ...

    def moved(self, done_bytes: int, done_files: int) -> None: ...

    def verified(
        self, parcel: Parcel, entries: bytes, digests: bytes, count: tuple[int, int]
    ) -> None: ...

    def bandwidth(self, asked: int) -> int: ...

    def warned(self, code: str, message: str) -> None: ...


class Whole:
    """A file whose slices have all arrived, and its digests at both ends as they are told."""

    def __init__(self, large: LargeFile, parcel: Parcel) -> None:
        self.large, self.parcel = large, parcel
        #: By whether it is the target's.
        self.digests: dict[bool, bytes] = {}


class Sorted(NamedTuple):
    """Entries that are not proven: failed for good, to be taken away, to be sent again."""

    failed: list[tuple[Entry, list[str]]]
    drop: list[Entry]
    again: list[Entry]


class Load:
    """One parcel on its way: what of it is under way, and what is proven."""

    def __init__(self, parcel: Parcel, blob: bytes) -> None:
        self.parcel, self.blob, self.kind = parcel, blob, parcel.kind
        self.tries = 0
        self.sent: Message | None = None
        self.received: Message | None = None
        self.proven: list[tuple[bytes, bytes]] = []
        self.settled_bytes = self.moving_bytes = 0

    def all_proven(self, sent: Message, received: Message) -> bool:
        """Whether all digests of both ends agree; then everything is taken as proven."""
        ours: bytes = sent["blob"]
        if ours != received["blob"] or sent["errors"] or NO_DIGEST in ours:
            return False
        if len(ours) != DIGEST * int.from_bytes(self.blob[:4], "little"):
            return False  # As many digests as the list says that it has entries.
        self.proven.append((self.blob, ours))
        # Sent again is only what was not proven the first time.
        all_of_it = self.tries == 1 or self.parcel.start
        self.settled_bytes += self.parcel.bytes if all_of_it else count_entries(self.blob)[1]
        return True

    def all_that_is_proven(self) -> list[tuple[bytes, bytes]]:
        """The entries that are proven and their digests, as one list whatever was sent again."""
        if len(self.proven) < 2:
            return self.proven
        entries = [entry for blob, _ in self.proven for entry in unpack_entries(blob)]
        return [(pack_entries(entries), b"".join(digests for _, digests in self.proven))]

    def sort(self, sent: Message, received: Message) -> Sorted:
        """Take what is proven, and sort the rest; what is to be sent again is what is left."""
        ours, theirs = sent["blob"], received["blob"]
        proven: list[Entry] = []
        digests: list[bytes] = []
        rest = Sorted([], [], [])
        for index, entry in enumerate(unpack_entries(self.blob)):
            one = ours[index * DIGEST : (index + 1) * DIGEST]
            other = theirs[index * DIGEST : (index + 1) * DIGEST]
            problem = sent["errors"].get(str(index)) or received["errors"].get(str(index))
            if not problem and one == other != NO_DIGEST and len(one) == DIGEST:
                proven.append(entry)
                digests.append(one)
                continue
            # Without a digest the receiver has left nothing of it; on a folding
            # target what stands under its name is another entry.
            if other != NO_DIGEST and entry.kind != FOLDER:
                rest.drop.append(entry)
            if not problem:
                rest.again.append(entry)
            elif entry.kind == TWIN:
                # Its first name is not where it could be linked to: it becomes a file again.
                rest.again.append(entry._replace(kind=FILE, link=""))
            else:
                rest.failed.append((entry, problem))
        if proven:
            self.proven.append((pack_entries(proven), b"".join(digests)))
            self.settled_bytes += sum(entry.size for entry in proven if entry.kind != TWIN)
        if self.kind is not ParcelKind.ARCHIVE:
            # What is sent again is too little for an archive.
            self.kind, self.blob = ParcelKind.FILE, pack_entries(rest.again)
        return rest


def count_entries(blob: bytes) -> tuple[int, int]:
    """How many files a list holds, and their bytes."""
    entries = unpack_entries(blob)
    files = sum(entry.kind != FOLDER for entry in entries)
    return files, sum(entry.size for entry in entries if entry.kind != TWIN)
