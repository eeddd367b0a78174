"""One transfer from first contact to the last clean-up: the phases, in order.

1. preflight: connect both ends, refuse what cannot work.
2. scan: list the source, compare it with the target, cut parcels.
3. transfer: carry the parcels into the staging folder; each is verified as it lands.
4. publish: make it durable, rename it into place, give folders their times, clean up.
5. remove_source (move only): remove what was proven and has not changed.
"""

from __future__ import annotations

import time
from typing import Any

from engine import errors
from engine.agent.wire import AgentError, pack_entries
from engine.carry import Carrier
from engine.planning import Planning
from engine.proof import Proofs
from engine.session import Session
from engine.spool import Spool
from engine.types import (
    Mode,
    Observer,
    ParcelState,
    Phase,
    Report,
)
from engine.watch import Watch


class Transfer:
    """A transfer whose ends are being connected; `run` or `plan_only` does the rest."""

    def __init__(self, session: Session, observer: Observer) -> None:
        self._request = session.request
        self._observer = observer
        self._session = session
        self._spool = Spool()
        self._watch = Watch(observer, self._spool)
        self._proofs = Proofs(self._session, self._spool, self._watch)
        self._planning = Planning(
            self._session, self._spool, self._watch, self._proofs, observer.lender
        )
        self._removed = 0
        self._streams = 1
        self._archive_digest = ""
        self._began = time.monotonic()

    def run(self) -> Report:
        """Do all phases."""
        try:
            self._preflight()
            self._plan()
            if self._planning.has_work:
                self._transfer()
                self._publish()
            elif self._planning.delivered:
                self._proofs.tell(ParcelState.PUBLISHED)
            if self._request.mode is Mode.MOVE:
                self._remove_source()
            report = self._report()
            self._session.close(done=True)
            return report
        except AgentError as error:  # What an agent said could not be read.
            raise self._abandoned(errors.AgentFailed(str(error))) from error
        except (OSError, MemoryError) as error:
            raise self._abandoned(errors.of_this_machine(error)) from error
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            self._session.close()
            self._spool.close()

    @errors.on_this_machine()
    def plan_only(self) -> dict[str, Any]:
        """Do the first two, changing nothing."""
        try:
            self._preflight()
            self._planning.plan(dry=True)
            return self._planning.summary()
        finally:
            self._session.close()
            self._spool.close()

    def _preflight(self) -> None:
        self._observer.phase(Phase.PREFLIGHT)
        self._session.open_source()
        self._session.look_at_target()

    def _plan(self) -> None:
        self._observer.phase(Phase.SCAN)
        self._planning.plan(dry=False)
        self._planning.refuse()
        self._watch.total(self._planning)
        self._observer.planned(self._planning.summary())
        for parcel in self._planning.planner.parcels + self._planning.planner.last_parcels:
            self._watch.tell(parcel, ParcelState.PENDING)
        self._watch.moved(self._planning.bytes_resumed, self._planning.resumed, now=True)

    def _transfer(self) -> None:
        self._observer.phase(Phase.TRANSFER)
        session, planner = self._session, self._planning.planner
        if not session.staged:
            session.begin_stage()  # The first parcels follow at once; far away that saves time.
        done = (self._planning.bytes_resumed, self._planning.resumed)
        streams = self._planning.streams
        carrier = self._carrier(streams, done)
        carrier.carry(planner.parcels)
        carrier.carry(planner.last_parcels)
        self._streams, self._archive_digest = carrier.lanes, carrier.archive_digest
        proven, failed = self._proofs.files, carrier.undelivered
        if proven + failed != planner.files + self._planning.resumed:
            raise errors.VerifyFailed(
                f"{planner.files + self._planning.resumed} files were planned, "
                f"but {proven} proven and {failed} failed"
            )
        self._watch.moved(self._proofs.bytes, proven, now=True)

    def _carrier(self, streams: int, done: tuple[int, int]) -> Carrier:
        of = (self._session, self._planning.planner, self._spool, self._proofs, streams, done)
        if self._observer.lender is None:
            return Carrier(*of)
        from engine.lend import LendingCarrier  # Most transfers are one worker's alone.

        return LendingCarrier(*of, self._observer.lender)

    def _publish(self) -> None:
        self._observer.phase(Phase.PUBLISH)
        session, top = self._session, pack_entries([])
        if session.archive_name:
            self._publish_archive()
            return
        if not session.single and session.fresh_target:
            top = self._planning.chooser.top
        policy, files = self._request.on_conflict.value, self._proofs.files
        done = session.target.ask("publish", top, policy=policy, files=files)
        session.staged = False
        self._observer.phase(Phase.CLEANUP)
        self._watch.warn(
            "FOLDER_NOT_FINISHED",
            "folders did not take their mode or time",
            done["problems"],
            done["problem_count"],
        )
        self._proofs.tell(ParcelState.PUBLISHED)

    def _publish_archive(self) -> None:
        session, keeps = self._session, self._session.keeps_archive_known
        if keeps:
            self._proofs.put_down()
        done = session.target.ask(
            "publish_archive",
            name=session.archive_name,
            digest=self._archive_digest,
            policy=self._request.on_conflict.value,
            keep=keeps,
        )
        session.staged = keeps
        self._observer.phase(Phase.CLEANUP)
        if done["there"]:
            self._watch.warned("ARCHIVE_THERE", f"{done['there']} was there already, byte for byte")
        self._proofs.tell(ParcelState.PUBLISHED)

    def _remove_source(self) -> None:
        self._observer.phase(Phase.REMOVE_SOURCE)
        there = self._planning.chooser.proven
        if there:
            self._session.refuse_same_place()
        self._removed = self._proofs.remove_source(there)
        self._watch.tell_what_stays()
        self._proofs.tell(ParcelState.SOURCE_REMOVED)
        if self._session.staged:
            self._observer.phase(Phase.CLEANUP)
            self._session.clean(undo=False)

    def _abandoned(self, error: errors.EngineError) -> errors.EngineError:
        self._abandon(error)
        return error

    def _abandon(self, error: BaseException) -> None:
        """Leave nothing of ours at the target, unless it is of use, or somebody else's by now."""
        if isinstance(error, errors.Cancelled):
            self._session.close(done=True)  # Somebody waits for it.
        if not self._session.staged or isinstance(error, errors.Replaced | errors.TargetBusy):
            return
        if self._keeps_after(error):
            if isinstance(error, errors.EngineError):
                error.kept = True
            error.add_note("what has arrived stays at the target, to go on from (resume)")
            return
        self._session.close()
        try:
            self._session.clean_anew(self._observer.alive)
        except errors.EngineError as trouble:
            error.add_note(f"the staging folder at the target could not be removed: {trouble}")
            self._observer.event(
                "warning",
                "STAGING_LEFT",
                f"the staging folder at the target could not be removed: {trouble}",
                {"folder": self._session.target_found.get("real", "")},
            )

    def _keeps_after(self, error: BaseException) -> bool:
        if not isinstance(error, errors.EngineError):  # A bug; what was proven is none the worse.
            return self._request.resume and isinstance(error, Exception)
        if error.retry == errors.NEEDS_PERSON:  # Perhaps a full disk: not without being asked to.
            return self._request.resume
        return error.retry == errors.TRANSIENT

    def _report(self) -> Report:
        planning, watch = self._planning, self._watch
        watch.last()
        return Report(
            status="partial" if watch.failures_total else "done",
            mode=self._request.mode,
            verify=self._request.verify_level,
            files=self._proofs.files,
            bytes=self._proofs.bytes,
            files_skipped=planning.chooser.skipped,
            files_removed=self._removed,
            files_resumed=planning.resumed,
            bytes_resumed=planning.bytes_resumed,
            streams=self._streams,
            seconds=time.monotonic() - self._began,
            parcels=len(planning.planner.parcels) + len(planning.planner.last_parcels),
            failures=tuple(watch.failures),
            failures_total=watch.failures_total,
            plan=planning.summary(),
        )
