"""Helper: carries parcels of a transfer that another worker runs."""

from __future__ import annotations

from typing import Any

from engine import errors
from engine.agent.wire import unpack_entries
from engine.carry.carrier import Carrier
from engine.carry.digest_check import DigestCheck
from engine.carry.queue import ParcelQueue
from engine.carry.stream_pool import StreamPool
from engine.loans import LentParcel, Location, ParcelResult
from engine.observer import Observer
from engine.parcels.builder import LargeFile, Parcel
from engine.parcels.spool import Spool
from engine.session.joining import join
from engine.session.session import Session
from engine.session.stream import Stream
from engine.types import ParcelKind, Progress, Request


class Helper:
    """A session at both ends of another worker's transfer; `carry` carries one parcel.

    Raises an EngineError if an end cannot be reached, or is not the place that
    the transfer's own worker sees.
    """

    def __init__(
        self, request: Request, location: Location, label: str, observer: Observer
    ) -> None:
        self._label = label
        self._observer = observer
        #: Bytes per second that each stream's source was last given; kept between parcels.
        self._rates: dict[Stream, int] = {}
        self._session = Session(request, observer.checkpoint)
        try:
            with errors.on_this_machine():
                join(self._session, location, label)
        except BaseException:
            self.close()
            raise

    @errors.on_this_machine()
    def carry(self, loan: LentParcel) -> ParcelResult:
        """Carry one parcel; return its proven entries and those that failed for good."""
        spool = Spool()
        try:
            entries = unpack_entries(loan.entries)
            kind = ParcelKind(loan.kind)
            large = None
            if kind is ParcelKind.RANGE:
                large = LargeFile(entries[0])
            slices = tuple((at, size) for at, size in loan.slices)
            block = spool.add(loan.entries)
            parcel = Parcel(
                loan.number, kind, loan.files, loan.bytes, block, slices=slices, large=large
            )
            results = _ResultCollector(self._observer)
            self._carrier(spool, results).carry([parcel])
            return ParcelResult(
                loan.number, self._label, results.proven, results.failures, results.undelivered
            )
        finally:
            spool.close()

    def _carrier(self, spool: Spool, results: _ResultCollector) -> Carrier:
        """Return a carrier of one parcel; the transfer's own worker proves files in slices."""
        session = self._session
        return Carrier(
            session,
            spool,
            results,
            pool=StreamPool(session, wanted=1, size=0, warn=results.warned, rates=self._rates),
            queue=ParcelQueue(),
            check=DigestCheck(session, results, None),
            rate_limit=lambda: self._observer.bandwidth(session.request.bwlimit),
        )

    def close(self) -> None:
        """End both agents, and wait for them."""
        self._session.close()


class _ResultCollector:
    """Collects a carrier's reports of one parcel."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.proven: list[tuple[bytes, bytes]] = []
        self.failures: list[tuple[str, str, str]] = []
        self.undelivered = 0

    def started(self, parcel: Parcel) -> None: ...

    def failed(self, path: str, code: str, message: str) -> None:
        self.failures.append((path, code, message))

    def moved(self, done_bytes: int, done_files: int) -> None:
        self._observer.progress(Progress(bytes_done=done_bytes, files_done=done_files))

    def verified(self, parcel: Parcel, entries: bytes, digests: bytes, count: Any) -> None:
        if entries:
            self.proven.append((entries, digests))

    def warned(self, code: str, message: str) -> None:
        self._observer.event("warning", code, message, {})
