"""A carrier that lends parcels to other workers, and takes in what became of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from engine import errors
from engine.agent.wire import FOLDER, Entry, pack_entries, unpack_entries
from engine.carry import Carrier
from engine.errand import Errand, Lender, Outcome
from engine.hub import Message
from engine.links import Link
from engine.load import Watcher, count_entries
from engine.plan import PARCEL_BYTES, Parcel, Planner
from engine.session import Lane, Session
from engine.spool import Spool
from engine.types import ParcelKind

#: Seconds between two looks at what other workers have done.
LOOK_SECONDS = 0.5
#: Parcels per stream that are not lent: the one who plans them has to have something to do.
KEPT_PER_STREAM = 1
#: The most bytes of a file that is lent in one stream: as much as a helper may lose of it.
LENT_BYTES = PARCEL_BYTES[ParcelKind.FILE][1]


class LendingCarrier(Carrier):
    """Moves all parcels, some of them with the hands of other workers.

    What a helper had when it was lost is sent again once it is shut out at the
    target: its agents can then write no more.
    """

    def __init__(
        self,
        session: Session,
        planner: Planner,
        spool: Spool,
        watcher: Watcher,
        streams: int,
        done: tuple[int, int],
        lender: Lender,
    ) -> None:
        super().__init__(session, planner, spool, watcher, streams, done)
        self._lender = lender
        self._looked = 0.0
        #: Parcels that others have, or may take.
        self._lent: dict[int, Parcel] = {}
        #: What a lost helper had, by its label, until it is shut out.
        self._lost: dict[str, deque[Parcel]] = {}

    def _work(self) -> None:
        while self._is_busy():
            heard = self._session.hub.next_within(LOOK_SECONDS)
            if heard:
                self._hear(*heard)
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                self._look_around()
            self._share_rate()

    def _is_busy(self) -> bool:
        return bool(self._lent or self._lost) or super()._is_busy()

    def _told(self, lane: Lane, link: Link, done: Message) -> None:
        if "shut_out" in done and link is lane.target:
            self._is_shut_out(done["shut_out"])
            self._fill(lane)
        else:
            super()._told(lane, link, done)

    def _look_around(self) -> None:
        """Take in what other workers have done, and have them do more.

        When nothing waits here any more, what nobody has taken is carried by ourselves.
        """
        left = sum(parcel.bytes for parcel in self._waiting)
        news = self._lender.look(left, max(self._streams, len(self._loads)))
        self._elsewhere = news.moving
        for outcome in news.outcomes:
            self._take_in(self._lent.pop(outcome.number), outcome)
        spare = len(self._waiting) - len(self._loads) * KEPT_PER_STREAM
        if self._waiting and news.room and spare > 0:
            self._offer(min(news.room, spare))
        elif self._lent and not self._waiting:
            self._waiting.extend(self._lent.pop(number) for number in self._lender.withdraw())
        for lane in self._loads:
            self._fill(lane)
        self._report()

    def _offer(self, most: int) -> None:
        """Offer some parcels, from the end of what waits."""
        errands: list[Errand] = []
        kept: list[Parcel] = []
        while self._waiting and len(errands) < most:
            parcel = self._waiting.pop()
            if not _can_be_lent(parcel):
                kept.append(parcel)
                continue
            self._lent[parcel.number] = parcel
            self._watcher.started(parcel)
            head = (parcel.number, parcel.kind.value, parcel.files, parcel.bytes)
            errands.append(Errand(*head, self._spool.get(parcel.block), parcel.slices))
        self._waiting.extend(reversed(kept))
        if errands:
            self._lender.offer(self._session.site, errands)

    def _take_in(self, parcel: Parcel, outcome: Outcome) -> None:
        """Count what a helper says as if it were ours; what came back undone is sent again."""
        large = parcel.large
        if outcome.returned and outcome.label:
            self._shut_out(parcel, outcome.label)
            return
        if outcome.returned:  # Nobody had it.
            self._waiting.append(parcel)
            return
        if large and outcome.failures:
            self._break(large, *outcome.failures[0][1:])
        elif large:
            self._bytes += parcel.bytes
        else:
            for path, code, sentence in outcome.failures:
                self._watcher.failed(path, code, sentence)
            self.undelivered += outcome.undelivered
            self._bytes += sum(count_entries(entries)[1] for entries, _ in outcome.proven)
        self._account(self._session.lanes[0], parcel, outcome.proven, b"")

    def _shut_out(self, parcel: Parcel, label: str) -> None:
        self._lost.setdefault(label, deque()).append(parcel)
        begun: Iterable[Entry] = ()
        if parcel.kind is not ParcelKind.RANGE:  # A slice is written over.
            entries = map(self._session.at_target, unpack_entries(self._spool.get(parcel.block)))
            begun = (entry for entry in entries if entry.kind != FOLDER)
        self._session.lanes[0].order("shut_out", pack_entries(list(begun)), label=label)

    def _is_shut_out(self, label: str) -> None:
        """One parcel that a lost helper had may be sent again."""
        if label not in self._lost:
            raise errors.AgentFailed("somebody was shut out whom nobody asked for")
        self._waiting.append(self._lost[label].popleft())
        if not self._lost[label]:
            del self._lost[label]


def _can_be_lent(parcel: Parcel) -> bool:
    """Not what has arrived in part, and not what is one stream as a whole.

    Nor a very large file in one stream: of that a lost helper would lose all.
    """
    if parcel.large and (parcel.large.failed or not parcel.slices):
        return False
    if parcel.kind is ParcelKind.FILE and parcel.files == 1 and parcel.bytes > LENT_BYTES:
        return False
    return not parcel.start and parcel.kind is not ParcelKind.ARCHIVE
