"""Carrying parcels: hands them to lanes, compares both ends' digests, re-sends what differs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine import errors
from engine.agent.wire import FOLDER, Entry
from engine.links import Link, Message
from engine.manifest import Manifest
from engine.manifest import write as write_manifest
from engine.plan import Parcel
from engine.session import Lane, Session
from engine.types import ParcelKind, Verify, display_path

#: How often an entry is sent whose digests differ, before that is the result.
TRIES = 3


@dataclass
class Cargo:
    """One parcel on its way: what is still to be sent, and what is proven."""

    parcel: Parcel
    pending: list[Entry]
    tries: int = 0
    proven: list[tuple[Entry, str]] = field(default_factory=list)
    sent: Message | None = None
    received: Message | None = None
    settled_bytes: int = 0
    moving_bytes: int = 0


class Carrier:
    """Moves all parcels over all lanes.

    `names` maps a source path to its name at the target where they differ.
    `failed` is told of each entry that could not be delivered, `moved` that
    the counters changed, `verified` of each parcel that is proven.
    """

    def __init__(
        self,
        session: Session,
        names: dict[str, str],
        started: Callable[[Parcel], None],
        failed: Callable[[str, str, str], None],
        moved: Callable[[int, int], None],
        verified: Callable[[Parcel, Manifest, list[Entry]], None],
    ) -> None:
        self._session = session
        self._names = names
        self._started, self._failed, self._moved, self._verified = started, failed, moved, verified
        self._aboard: dict[Link, tuple[Lane, Cargo]] = {}
        self._bytes = 0
        self._files = 0
        #: Entries other than folders that were reported to `failed`.
        self.undelivered = 0

    def carry(self, parcels: Iterable[Parcel]) -> None:
        """Return when every parcel is proven; raise what stopped it."""
        waiting = deque(parcels)
        for lane in self._session.lanes:
            if waiting:
                self._load(lane, waiting.popleft())
        while self._aboard:
            link, message = self._session.hub.next()
            if link not in self._aboard:
                continue
            lane, cargo = self._aboard[link]
            if "progress" in message:
                # While it is read back it counts anew from nothing; what came stays counted.
                came = min(message["progress"][0], cargo.parcel.bytes)
                cargo.moving_bytes = max(cargo.moving_bytes, came)
                self._report()
                continue
            if link is lane.source:
                cargo.sent = message["done"]
            else:
                cargo.received = message["done"]
            if cargo.sent is not None and cargo.received is not None:
                self._settle(lane, cargo)
                if cargo.pending:
                    self._send(lane, cargo)
                else:
                    self._unload(lane, cargo)
                    if waiting:
                        self._load(lane, waiting.popleft())

    def _load(self, lane: Lane, parcel: Parcel) -> None:
        cargo = Cargo(parcel, parcel.entries())
        self._aboard[lane.source] = self._aboard[lane.target] = (lane, cargo)
        self._started(parcel)
        self._send(lane, cargo)

    def _send(self, lane: Lane, cargo: Cargo) -> None:
        request = self._session.request
        cargo.sent = cargo.received = None
        cargo.tries += 1
        # What is sent again is too little for an archive.
        kind = cargo.parcel.kind if cargo.tries == 1 else ParcelKind.FILE
        lane.target.tell(
            "receive",
            kind=kind.value,
            entries=[self._renamed(entry) for entry in cargo.pending],
            readback=request.verify_level is Verify.READBACK,
        )
        lane.source.tell("send", kind=kind.value, entries=cargo.pending, drill=request.drill)

    def _renamed(self, entry: Entry) -> Entry:
        name = self._names.get(entry.path)
        return entry._replace(path=name) if name else entry

    def _settle(self, lane: Lane, cargo: Cargo) -> None:
        """Sort the entries that were sent into proven, failed, and to be sent again."""
        sent, received = cargo.sent or {}, cargo.received or {}
        drop: list[Entry] = []
        again: list[Entry] = []
        for index, entry in enumerate(cargo.pending):
            ours, theirs = sent["digests"][index], received["digests"][index]
            problem = sent["errors"].get(str(index)) or received["errors"].get(str(index))
            if not problem and ours and ours == theirs:
                cargo.proven.append((entry, ours))
                continue
            if problem:
                self._failed(entry.path, problem[0], problem[1])
                self.undelivered += entry.kind != FOLDER
            else:
                again.append(entry)
            # Without a digest the receiver has left nothing of it; on a folding
            # target what stands under its name is another entry.
            if theirs and entry.kind != FOLDER:
                drop.append(self._renamed(entry))
        if again and cargo.tries == TRIES:
            first = display_path(again[0].path)
            raise errors.VerifyFailed(
                f"{first} arrived damaged {TRIES} times: the digests of both ends differ"
            )
        if drop:
            lane.target.ask("discard", entries=drop)
        cargo.settled_bytes = sum(entry.size for entry, _ in cargo.proven)
        cargo.moving_bytes = 0
        cargo.pending = again

    def _unload(self, lane: Lane, cargo: Cargo) -> None:
        del self._aboard[lane.source], self._aboard[lane.target]
        proven = [entry for entry, _ in cargo.proven]
        self._bytes += cargo.settled_bytes
        self._files += sum(entry.kind != FOLDER for entry in proven)
        self._verified(cargo.parcel, write_manifest(cargo.proven), proven)
        self._report()

    def _report(self) -> None:
        under_way = {id(cargo): cargo for _, cargo in self._aboard.values()}
        moving = sum(max(c.settled_bytes, c.moving_bytes) for c in under_way.values())
        self._moved(self._bytes + moving, self._files)
