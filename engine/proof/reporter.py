"""Reporter: reports a transfer's parcels, counters, failures and warnings to its observer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.agent.typed import NamedTuple
from engine.observer import Observer
from engine.parcels.builder import Parcel
from engine.parcels.spool import Spool
from engine.protocol.fields import EntryProblem
from engine.types import EntryFailure, ParcelReport, ParcelState, Progress, display_path

if TYPE_CHECKING:
    from engine.proof.manifest import Manifest

#: Failures that are listed one by one, at most; of further ones only the number is kept.
LISTED_FAILURES = 1000
#: Failures that an event names, at most; it always has the total.
NAMED_FAILURES = 100
#: Seconds between two reports of the counters.
PROGRESS_SECONDS = 0.5
#: Warnings of one code that are reported, at most; further ones say the same.
WARNINGS_PER_CODE = 5


class Totals(NamedTuple):
    """How much a transfer has to do: entries without folders, their bytes, entries skipped."""

    files: int = 0
    bytes: int = 0
    skipped: int = 0


class Reporter:
    """Reports to the observer, and keeps the failures for the final report."""

    def __init__(self, observer: Observer, spool: Spool) -> None:
        self._observer = observer
        self._reported = 0.0
        self._progress = Progress()
        self._warned: dict[str, int] = {}
        self.wants_manifests = observer.wants_manifests
        self.record = observer.record
        self.failures: list[EntryFailure] = []
        self.failures_total = 0
        self._totals = Totals()

    def total(self, totals: Totals) -> None:
        """Set how much the transfer has to do."""
        self._totals = totals

    def fail(self, path: str, code: str, message: str) -> None:
        """Record an entry that was not delivered."""
        self.failures_total += 1
        if len(self.failures) < LISTED_FAILURES:
            self.failures.append(EntryFailure(display_path(path), code, message))

    def warn(self, code: str, what: str, problems: Sequence[EntryProblem], number: int = 0) -> None:
        """Report all problems of one kind in one event."""
        if problems:
            number = number or len(problems)
            sentences = "; ".join(problem.sentence for problem in problems[:5])
            data = {"number": number, "codes": sorted({problem.code for problem in problems})}
            self._observer.event("warning", code, f"{number} {what}: {sentences}", data)

    def warned(self, code: str, message: str) -> None:
        """Report a warning that may occur often; only WARNINGS_PER_CODE times for each code."""
        self._warned[code] = self._warned.get(code, 0) + 1
        if self._warned[code] <= WARNINGS_PER_CODE:
            self._observer.event("warning", code, message, {})

    def moved(self, done_bytes: int, done_files: int, now: bool = False) -> None:
        """Report the counters, at most twice a second; with `now`, at once."""
        if not now and time.monotonic() - self._reported < PROGRESS_SECONDS:
            return
        self._reported = time.monotonic()
        self._progress = Progress(
            files_total=self._totals.files,
            files_done=done_files,
            bytes_total=self._totals.bytes,
            bytes_done=min(done_bytes, self._totals.bytes),
            files_skipped=self._totals.skipped,
            files_failed=self.failures_total,
        )
        self._observer.progress(self._progress)

    def report_left_at_source(self) -> None:
        """Report the entries that a move leaves at the source, in case this worker is lost."""
        if self.failures_total:
            failures = [failure._asdict() for failure in self.failures[:NAMED_FAILURES]]
            data = {"failures_total": self.failures_total, "failures": failures}
            what = f"{self.failures_total} entries stay at the source"
            self._observer.event("warning", "NOT_ALL_MOVED", what, data)

    def last(self) -> None:
        """Report the counters once more, as they are at the end."""
        self._observer.progress(self._progress)

    def report_parcel(
        self, parcel: Parcel, state: ParcelState, manifest: Manifest | None = None
    ) -> None:
        """Report a parcel's state."""
        self._observer.parcel(
            ParcelReport(
                parcel.number,
                parcel.kind,
                parcel.files,
                parcel.bytes,
                state,
                manifest.digest if manifest else "",
                manifest.blob if manifest else None,
            )
        )
