"""LendingQueue: a queue of parcels that lends some to other workers and collects the results."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from engine.agent.wire import FOLDER, Entry, pack_entries, unpack_entries
from engine.carry.queue import ParcelQueue
from engine.loans import Lender, LentParcel, ParcelResult
from engine.parcels.builder import PARCEL_BYTES, Parcel
from engine.parcels.spool import Spool
from engine.protocol.commands import FENCE_OUT
from engine.session.joining import location_of
from engine.session.session import Session
from engine.types import ParcelKind

#: Seconds between two looks at the results of other workers.
LOOK_SECONDS = 0.5
#: Parcels per stream that are not lent, so that the transfer's own worker stays busy.
KEPT_PER_STREAM = 1
#: Bytes of a single file that is lent, at most: a lost helper loses that much.
LENT_BYTES = PARCEL_BYTES[ParcelKind.FILE][1]


class LendingQueue(ParcelQueue):
    """A queue from which other workers take parcels through a `lender`.

    The parcels of a lost helper are sent again once the target's agent has fenced the helper
    out: from then on its agents cannot write. `started` is called with each lent parcel.
    """

    def __init__(
        self, session: Session, spool: Spool, lender: Lender, started: Callable[[Parcel], None]
    ) -> None:
        super().__init__()
        self._session, self._spool, self._lender, self._started = session, spool, lender, started
        self._looked = 0.0
        self._room = 0
        #: Parcels that other workers have, or may take, by number.
        self._lent: dict[int, Parcel] = {}
        #: Parcels of lost helpers, by the helper's label, until the helper is fenced out.
        self._lost: dict[str, deque[Parcel]] = {}

    @property
    def look_seconds(self) -> float:
        """Seconds between two looks at the results of other workers."""
        return LOOK_SECONDS

    @property
    def has_work(self) -> bool:
        """True if a parcel waits here, is lent, or waits until a lost helper is fenced out."""
        return bool(self.waiting or self._lent or self._lost)

    def look_is_due(self) -> bool:
        """True if the last look was at least LOOK_SECONDS ago."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def results(self, streams: int) -> list[tuple[Parcel, ParcelResult]]:
        """Return the parcels that other workers have carried; queue returned ones again."""
        self._looked = time.monotonic()
        left = sum(parcel.bytes for parcel in self.waiting)
        status = self._lender.look(left, streams)
        self.moving_elsewhere, self._room = status.moving, status.room
        carried = []
        for result in status.results:
            parcel = self._lent.pop(result.number)
            if not result.returned:
                carried.append((parcel, result))
            elif result.label:
                self._fence_out(parcel, result.label)
            else:  # No worker had taken it.
                self.waiting.append(parcel)
        return carried

    def lend(self, streams: int) -> None:
        """Offer the parcels that `streams` streams do not need; if none waits, take loans back."""
        spare = len(self.waiting) - streams * KEPT_PER_STREAM
        if self.waiting and self._room and spare > 0:
            self._offer(min(self._room, spare))
        elif self._lent and not self.waiting:
            self.waiting.extend(self._lent.pop(number) for number in self._lender.withdraw())

    def fenced_out(self, label: str) -> None:
        """Queue one parcel of a lost helper again, since the helper is now fenced out."""
        if label not in self._lost:
            super().fenced_out(label)
        self.waiting.append(self._lost[label].popleft())
        if not self._lost[label]:
            del self._lost[label]

    def _offer(self, most: int) -> None:
        """Offer up to `most` parcels, from the end of the queue."""
        loans: list[LentParcel] = []
        kept: list[Parcel] = []
        while self.waiting and len(loans) < most:
            parcel = self.waiting.pop()
            if not _can_be_lent(parcel):
                kept.append(parcel)
                continue
            self._lent[parcel.number] = parcel
            self._started(parcel)
            head = (parcel.number, parcel.kind.value, parcel.files, parcel.bytes)
            loans.append(LentParcel(*head, self._spool.get(parcel.block), parcel.slices))
        self.waiting.extend(reversed(kept))
        if loans:
            self._lender.offer(location_of(self._session), loans)

    def _fence_out(self, parcel: Parcel, label: str) -> None:
        """Order the target's agent to end a helper's agents and remove what they began."""
        self._lost.setdefault(label, deque()).append(parcel)
        begun: Iterable[Entry] = ()
        if parcel.kind is not ParcelKind.RANGE:  # A slice is written again at its place.
            entries = map(
                self._session.aim.at_target, unpack_entries(self._spool.get(parcel.block))
            )
            begun = (entry for entry in entries if entry.kind != FOLDER)
        self._session.streams[0].order(FENCE_OUT, pack_entries(list(begun)), label=label)


def _can_be_lent(parcel: Parcel) -> bool:
    """True if another worker may carry the parcel.

    A parcel that arrived in part, and an archive (one stream as a whole), stay here. So does a
    very large file in one stream: a lost helper would lose all of it.
    """
    if parcel.large and (parcel.large.failed or not parcel.slices):
        return False
    if parcel.kind is ParcelKind.FILE and parcel.files == 1 and parcel.bytes > LENT_BYTES:
        return False
    return not parcel.start and parcel.kind is not ParcelKind.ARCHIVE
