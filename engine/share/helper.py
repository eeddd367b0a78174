"""A helper: carries parcels of a transfer that another worker runs."""

from __future__ import annotations

from typing import Any

from engine import errors
from engine.agent.wire import AgentError, unpack_entries
from engine.carry import Carrier
from engine.errand import Errand, Outcome, Site
from engine.plan import LargeFile, Parcel, Planner
from engine.session import Lane, Session
from engine.spool import Spool
from engine.types import Observer, ParcelKind, Progress, Request


class Helper:
    """Agents at both ends of somebody else's transfer; `carry` takes one parcel across.

    Raises an EngineError if an end cannot be reached, or is not the place that
    the transfer's own worker sees.
    """

    def __init__(self, request: Request, site: Site, label: str, observer: Observer) -> None:
        self._label = label
        self._observer = observer
        #: What the lane was told of its rate, with whatever parcel.
        self._rates: dict[Lane, int] = {}
        self._session = Session(request, observer.checkpoint)
        try:
            self._session.join(site, label)
        except AgentError as error:
            self.close()
            raise errors.AgentFailed(str(error)) from error
        except BaseException:
            self.close()
            raise

    @errors.on_this_machine()
    def carry(self, errand: Errand) -> Outcome:
        """Carry one parcel; say what is proven of it and what failed for good."""
        spool = Spool()
        try:
            entries = unpack_entries(errand.entries)
            kind = ParcelKind(errand.kind)
            large = None
            if kind is ParcelKind.RANGE:
                large = LargeFile(entries[0])
                large.parcels_left = 2  # Never the last one: the whole is not ours to prove.
            slices = tuple((at, size) for at, size in errand.slices)
            block = spool.add(errand.entries)
            parcel = Parcel(
                errand.number, kind, errand.files, errand.bytes, block, slices=slices, large=large
            )
            results = _Results(self._observer)
            planner = Planner(self._session.request.strategy, spool)
            carrier = _PartCarrier(self._session, planner, spool, results, 1, (0, 0))
            carrier.goes_on_from(self._rates)
            carrier.carry([parcel])
            return Outcome(
                errand.number, self._label, results.proven, results.failures, carrier.undelivered
            )
        except AgentError as error:
            raise errors.AgentFailed(str(error)) from error
        finally:
            spool.close()

    def close(self) -> None:
        """Let both agents go, and wait until they have ended."""
        self._session.close()


class _PartCarrier(Carrier):
    """A carrier that knows a part of the transfer only."""

    def goes_on_from(self, rates: dict[Lane, int]) -> None:
        """Share what the lanes were told of their rates with the carriers before and after."""
        self._rates = rates

    def _take_away_broken(self) -> None:
        """Leave a broken file to the transfer's own worker: others may still write to it."""


class _Results:
    """What a carrier says of a parcel."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.proven: list[tuple[bytes, bytes]] = []
        self.failures: list[tuple[str, str, str]] = []

    def started(self, parcel: Parcel) -> None: ...

    def failed(self, path: str, code: str, message: str) -> None:
        self.failures.append((path, code, message))

    def moved(self, done_bytes: int, done_files: int) -> None:
        self._observer.progress(Progress(bytes_done=done_bytes, files_done=done_files))

    def verified(self, parcel: Parcel, entries: bytes, digests: bytes, count: Any) -> None:
        if entries:
            self.proven.append((entries, digests))

    def bandwidth(self, asked: int) -> int:
        return self._observer.bandwidth(asked)

    def warned(self, code: str, message: str) -> None:
        self._observer.event("warning", code, message, {})
