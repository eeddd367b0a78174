"""One transfer from first contact to the last clean-up: the phases, in order.

1. preflight: connect both ends, refuse what cannot work.
2. scan: list the source, compare it with the target, cut parcels.
3. transfer: carry the parcels into the staging folder; each is verified as it lands.
4. publish: make it durable, rename it into place, give folders their times.
5. remove_source (move only): remove what was proven and has not changed.
6. cleanup: nothing of ours stays at the target.
"""

from __future__ import annotations

import time
from typing import Any

from engine import errors
from engine.agent.wire import FOLDER, Entry
from engine.carry import Carrier
from engine.choose import Chooser
from engine.manifest import Manifest
from engine.plan import Parcel, Planner, pack, unpack
from engine.session import Session
from engine.types import (
    EntryFailure,
    Mode,
    Observer,
    ParcelReport,
    ParcelState,
    Phase,
    Progress,
    Report,
    Request,
    SilentObserver,
    display_path,
)

#: Failures that are listed one by one; beyond that only their number is kept.
LISTED_FAILURES = 1000
PROGRESS_SECONDS = 0.5


def run(request: Request, observer: Observer | None = None) -> Report:
    """Carry out a transfer; return how it ended, or raise an EngineError.

    Whatever is raised, by the engine or by the observer: no final name at the
    target shows unproven content, no source entry was removed without proof,
    and the staging folder is gone where the target could still be reached.
    """
    return _Transfer(request, observer or SilentObserver()).run()


def dry_run(request: Request, observer: Observer | None = None) -> dict[str, Any]:
    """What `run` would send, without changing anything; raises as `run` does up to there."""
    planned = _Transfer(request, observer or SilentObserver())
    return planned.plan_only()


class _Transfer:
    def __init__(self, request: Request, observer: Observer) -> None:
        self._request = request
        self._observer = observer
        self._session = Session(request, observer.checkpoint)
        self._planner = Planner(request.strategy)
        self._chooser = Chooser(self._session, self._planner, self._fail)
        self._failures: list[EntryFailure] = []
        self._failures_total = 0
        self._proven: list[tuple[Parcel, bytes, Manifest]] = []
        self._bytes = self._files = self._removed = 0
        self._reported = 0.0
        self._began = time.monotonic()

    def run(self) -> Report:
        try:
            self._preflight()
            self._scan()
            if self._planner.parcels:
                self._transfer()
                self._publish()
            if self._request.mode is Mode.MOVE:
                self._remove_source()
            return self._report()
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._session.close()

    def plan_only(self) -> dict[str, Any]:
        try:
            self._preflight()
            self._scan()
            return self._plan()
        finally:
            self._session.close()

    def _preflight(self) -> None:
        self._observer.phase(Phase.PREFLIGHT)
        self._session.look()
        self._session.open_source()

    def _scan(self) -> None:
        self._observer.phase(Phase.SCAN)
        self._chooser.choose()
        self._planner.finish()
        free = self._session.target_found["free"]
        if self._planner.bytes > free:
            raise errors.NoSpace(
                f"the target has {free:,} bytes free, the transfer needs {self._planner.bytes:,}"
            )
        self._observer.planned(self._plan())
        for parcel in self._planner.parcels:
            self._tell_parcel(parcel, ParcelState.PENDING)
        self._moved(0, 0, now=True)

    def _plan(self) -> dict[str, Any]:
        return {**self._planner.summary(), "skipped": self._chooser.skipped}

    def _transfer(self) -> None:
        self._observer.phase(Phase.TRANSFER)
        session, parcels = self._session, self._planner.parcels
        session.stage()
        while len(session.lanes) < min(self._request.streams, len(parcels)):
            session.add_lane()
        names = {session.single[0].path: session.single[1]} if session.single else {}
        carrier = Carrier(
            session,
            names,
            started=lambda parcel: self._tell_parcel(parcel, ParcelState.SENDING),
            failed=self._fail,
            moved=self._moved,
            verified=self._verified,
        )
        carrier.carry(parcels)
        if self._files + carrier.undelivered != self._planner.files:
            raise errors.VerifyFailed(
                f"{self._planner.files} files were planned, but {self._files} proven "
                f"and {carrier.undelivered} failed"
            )
        self._moved(self._bytes, self._files, now=True)

    def _publish(self) -> None:
        self._observer.phase(Phase.PUBLISH)
        target = self._session.target
        problems: list[list[str]] = []
        target.ask("publish", policy=self._request.on_conflict.value, files=self._files)
        for parcel, blob, manifest in reversed(self._proven):
            folders = [entry for entry in reversed(unpack(blob)) if entry.kind == FOLDER]
            if folders:
                problems += target.ask("finish", entries=folders)["problems"]
            self._tell_parcel(parcel, ParcelState.PUBLISHED, manifest)
        self._warn("FOLDER_NOT_FINISHED", "folders did not take their mode or time", problems)
        self._observer.phase(Phase.CLEANUP)
        self._session.clean(undo=False)
        found = self._session.source_found
        if not self._session.single and self._session.fresh_target:
            target.ask("finish_root", mode=found["mode"], mtime_ns=found["mtime_ns"])
        target.ask("sync")

    def _remove_source(self) -> None:
        self._observer.phase(Phase.REMOVE_SOURCE)
        source = self._session.source
        problems: list[list[str]] = []
        if self._chooser.proven_blobs:
            self._session.refuse_same_place()
        blobs = [blob for _, blob, _ in self._proven] + self._chooser.proven_blobs
        for blob in blobs:
            entries = [entry for entry in unpack(blob) if entry.kind != FOLDER]
            answer = source.ask("remove", entries=entries)
            self._removed += answer["removed"]
            for path, code, message in answer["kept"]:
                self._fail(path, code, message)
        for blob in reversed(blobs):
            folders = [entry for entry in reversed(unpack(blob)) if entry.kind == FOLDER]
            problems += source.ask("remove_folders", entries=folders)["problems"]
        self._warn("FOLDER_NOT_REMOVED", "empty folders could not be removed", problems)
        for parcel, _, manifest in self._proven:
            self._tell_parcel(parcel, ParcelState.SOURCE_REMOVED, manifest)

    def _abandon(self, error: BaseException) -> None:
        """Leave nothing of ours at the target, unless somebody else is at work there."""
        if not self._session.staged or isinstance(error, errors.Replaced | errors.TargetBusy):
            return
        self._session.close()
        try:
            self._session.clean_anew()
        except errors.EngineError as trouble:
            error.add_note(f"the staging folder at the target could not be removed: {trouble}")
            self._observer.event(
                "warning",
                "STAGING_LEFT",
                f"the staging folder at the target could not be removed: {trouble}",
                {"folder": self._session.target_found.get("real", "")},
            )

    def _warn(self, code: str, what: str, problems: list[list[str]]) -> None:
        """One event for all problems of a kind, however many."""
        if problems:
            told = "; ".join(sentence for _, _, sentence in problems[:5])
            data = {"number": len(problems), "codes": sorted({row[1] for row in problems})}
            self._observer.event("warning", code, f"{len(problems)} {what}: {told}", data)

    def _verified(self, parcel: Parcel, manifest: Manifest, proven: list[Entry]) -> None:
        self._proven.append((parcel, pack(proven), manifest))
        self._tell_parcel(parcel, ParcelState.VERIFIED, manifest)

    def _fail(self, path: str, code: str, message: str) -> None:
        self._failures_total += 1
        if len(self._failures) < LISTED_FAILURES:
            self._failures.append(EntryFailure(display_path(path), code, message))

    def _moved(self, done_bytes: int, done_files: int, now: bool = False) -> None:
        self._bytes, self._files = done_bytes, done_files
        if not now and time.monotonic() - self._reported < PROGRESS_SECONDS:
            return
        self._reported = time.monotonic()
        self._observer.progress(
            Progress(
                files_total=self._planner.files + self._chooser.skipped + self._chooser.failed,
                files_done=done_files,
                bytes_total=self._planner.bytes,
                bytes_done=done_bytes,
                files_skipped=self._chooser.skipped,
                files_failed=self._failures_total,
            )
        )

    def _tell_parcel(
        self, parcel: Parcel, state: ParcelState, manifest: Manifest | None = None
    ) -> None:
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

    def _report(self) -> Report:
        self._moved(self._bytes, self._files, now=True)
        return Report(
            status="partial" if self._failures_total else "done",
            mode=self._request.mode,
            verify=self._request.verify_level,
            files=self._files,
            bytes=self._bytes,
            files_skipped=self._chooser.skipped,
            files_removed=self._removed,
            seconds=time.monotonic() - self._began,
            parcels=len(self._planner.parcels),
            failures=tuple(self._failures),
            failures_total=self._failures_total,
            plan=self._plan(),
        )
