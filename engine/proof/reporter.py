"""What a transfer tells its observer: parcels, counters, failures, warnings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.plan import Parcel
from engine.spool import Spool
from engine.types import (
    EntryFailure,
    Observer,
    ParcelReport,
    ParcelState,
    Progress,
    display_path,
)

if TYPE_CHECKING:
    from engine.manifest import Manifest
    from engine.planning import Planning

#: Failures that are listed one by one; beyond that only their number is kept.
LISTED_FAILURES = 1000
#: Those that an event names; the total is always given.
NAMED_FAILURES = 100
PROGRESS_SECONDS = 0.5
#: Warnings of one code that are told; the rest would say the same.
TOLD_WARNINGS = 5


class Watch:
    """Tells the observer, and keeps what the report will say."""

    def __init__(self, observer: Observer, spool: Spool) -> None:
        self._observer = observer
        self._reported = 0.0
        self._progress = Progress()
        self._warned: dict[str, int] = {}
        self.wants_manifests = observer.wants_manifests
        self.failures: list[EntryFailure] = []
        self.failures_total = 0
        self._files = self._bytes = self._skipped = 0

    def total(self, planning: Planning) -> None:
        """Learn from the plan how much there is to do."""
        planner, chooser = planning.planner, planning.chooser
        self._files = planner.files + planning.resumed + chooser.skipped + chooser.failed
        self._bytes = planner.bytes + planning.bytes_held
        self._skipped = chooser.skipped

    def fail(self, path: str, code: str, message: str) -> None:
        """An entry was not delivered."""
        self.failures_total += 1
        if len(self.failures) < LISTED_FAILURES:
            self.failures.append(EntryFailure(display_path(path), code, message))

    def warn(self, code: str, what: str, problems: list[list[str]], number: int = 0) -> None:
        """One event for all problems of a kind, however many."""
        if problems:
            number = number or len(problems)
            told = "; ".join(sentence for _, _, sentence in problems[:5])
            data = {"number": number, "codes": sorted({row[1] for row in problems})}
            self._observer.event("warning", code, f"{number} {what}: {told}", data)

    def bandwidth(self, asked: int) -> int:
        """How many bytes per second may be used now."""
        return self._observer.bandwidth(asked)

    def warned(self, code: str, message: str) -> None:
        """An event for something that may happen again and again; told a few times."""
        self._warned[code] = self._warned.get(code, 0) + 1
        if self._warned[code] <= TOLD_WARNINGS:
            self._observer.event("warning", code, message, {})

    def moved(self, done_bytes: int, done_files: int, now: bool = False) -> None:
        """The counters changed; told twice a second, or `now`."""
        if not now and time.monotonic() - self._reported < PROGRESS_SECONDS:
            return
        self._reported = time.monotonic()
        self._progress = Progress(
            files_total=self._files,
            files_done=done_files,
            bytes_total=self._bytes,
            bytes_done=min(done_bytes, self._bytes),
            files_skipped=self._skipped,
            files_failed=self.failures_total,
        )
        self._observer.progress(self._progress)

    def tell_what_stays(self) -> None:
        """What a move leaves at the source, for whoever has to end it when we cannot."""
        if self.failures_total:
            failures = [failure._asdict() for failure in self.failures[:NAMED_FAILURES]]
            data = {"failures_total": self.failures_total, "failures": failures}
            what = f"{self.failures_total} entries stay at the source"
            self._observer.event("warning", "NOT_ALL_MOVED", what, data)

    def last(self) -> None:
        """Tell the counters once more, as they are at the end."""
        self._observer.progress(self._progress)

    def tell(self, parcel: Parcel, state: ParcelState, manifest: Manifest | None = None) -> None:
        """News of a parcel."""
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
