"""Transfer: runs one transfer from the first contact to the clean-up, phase by phase.

1. preflight: connect both ends, refuse a transfer that cannot work.
2. scan: list the source, compare it with the target, cut parcels.
3. transfer: carry the parcels into the staging folder; each is verified as it lands.
4. publish: make the entries durable, rename them into place, set folder times, clean up.
5. remove_source (move only): remove the entries that were proven and have not changed.
"""

from __future__ import annotations

import time
from typing import Any

from engine import errors, leftovers
from engine.agent.wire import FILE, AgentError, Entry, pack_entries
from engine.carry.carrier import Carrier
from engine.carry.digest_check import DigestCheck
from engine.carry.queue import ParcelQueue
from engine.carry.stream_pool import StreamPool
from engine.carry.whole_files import WholeFiles
from engine.observer import Observer
from engine.parcels.spool import Spool
from engine.plan.transfer_plan import TransferPlan
from engine.proof.delivery_report import DeliveryReport
from engine.proof.proofs import Proofs
from engine.proof.reporter import Reporter
from engine.protocol.commands import PUBLISH, PUBLISH_ARCHIVE
from engine.session.preflight import inspect_target, open_source, warnings_of
from engine.session.session import Session
from engine.types import Mode, ParcelState, Phase, Report

#: Errors that say that the staging folder belongs to another run or user: it stays.
_STAGING_OF_ANOTHER = (errors.Replaced, errors.TargetBusy, errors.StagingNotOurs)


class Transfer:
    """One transfer whose ends are being connected; `run` or `plan_only` does the rest."""

    def __init__(self, session: Session, observer: Observer) -> None:
        self._request = session.request
        self._observer = observer
        self._session = session
        self._spool = Spool()
        self._reporter = Reporter(observer, self._spool)
        session.staging.on_note = self._reporter.warned
        self._proofs = Proofs(self._session, self._spool, self._reporter)
        self._plan = TransferPlan(
            self._session,
            self._spool,
            self._reporter,
            self._proofs,
            observer.lender,
            observer.record,
        )
        self._removed = 0
        self._streams = 1
        self._delivery = DeliveryReport(session, self._spool, observer.delivery)
        self._began = time.monotonic()

    def run(self) -> Report:
        """Run all phases; return how the transfer ended, or raise the error that ended it."""
        try:
            self._preflight()
            self._make_plan()
            if self._plan.has_work:
                self._transfer()
                self._publish()
            elif self._plan.delivered:
                self._proofs.report_state(ParcelState.PUBLISHED)
            self._proofs.adjust(self._plan.comparison.tally.to_adjust)
            self._delivery.published(self._proofs, *self._plan.there())
            if self._request.mode is Mode.MOVE:
                self._remove_source()
            self._delivery.settled()
            report = self._report()
            self._session.close(done=True)
            return report
        except AgentError as error:  # An agent's message was malformed.
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
        """Run the first two phases, changing nothing; return the plan's figures."""
        try:
            self._preflight()
            self._plan.plan(dry=True)
            return self._plan.summary()
        finally:
            self._session.close()
            self._spool.close()

    def _preflight(self) -> None:
        self._observer.phase(Phase.PREFLIGHT)
        open_source(self._session)
        inspect_target(self._session)
        request = self._session.request
        for code, sentence in warnings_of(self._session):
            self._reporter.warned(code, sentence)
        # Before any write, or read but the scan: the observer may know that a root has moved.
        self._observer.rooted(request.source.real_root, request.target.real_root)

    def _make_plan(self) -> None:
        self._observer.phase(Phase.SCAN)
        self._plan.plan(dry=False)
        self._plan.refuse()
        self._reporter.total(self._plan.totals())
        self._observer.planned(self._plan.summary())
        for parcel in self._plan.builder.parcels + self._plan.builder.last_parcels:
            self._reporter.report_parcel(parcel, ParcelState.PENDING)
        self._reporter.moved(self._plan.bytes_resumed, self._plan.resumed, now=True)

    def _transfer(self) -> None:
        self._observer.phase(Phase.TRANSFER)
        session, builder = self._session, self._plan.builder
        if not session.staging.is_there:
            session.staging.begin()  # The first parcels follow at once: it saves a round trip.
        carrier = self._carrier()
        carrier.carry(builder.parcels)
        carrier.carry(builder.last_parcels)
        self._streams, self._delivery.digest = carrier.stream_count, self._check.archive_digest
        if session.aim.archive_name and not self._delivery.digest:
            raise errors.AgentFailed("protocol error at the source: no digest of the archive came")
        proven, failed = self._proofs.files, self._proofs.undelivered
        if proven + failed != builder.files + self._plan.resumed:
            raise errors.VerifyFailed(
                f"{builder.files + self._plan.resumed} files were planned, "
                f"but {proven} proven and {failed} failed"
            )
        self._reporter.moved(self._proofs.bytes, proven, now=True)

    def _carrier(self) -> Carrier:
        session, spool, proofs, plan = self._session, self._spool, self._proofs, self._plan
        whole_files = WholeFiles(session, spool, plan.builder.slice_again)
        self._check = DigestCheck(session, proofs, whole_files)
        return Carrier(
            session,
            spool,
            proofs,
            pool=StreamPool(
                session, wanted=plan.streams, size=plan.builder.bytes, warn=proofs.warned
            ),
            queue=self._queue(),
            check=self._check,
            rate_limit=lambda: self._observer.bandwidth(self._request.bwlimit),
            done=(plan.bytes_resumed, plan.resumed),
        )

    def _queue(self) -> ParcelQueue:
        if self._observer.lender is None:
            return ParcelQueue()
        from engine.share.lending import LendingQueue  # Most transfers have one worker only.

        return LendingQueue(self._session, self._spool, self._observer.lender, self._proofs.started)

    def _publish(self) -> None:
        self._observer.phase(Phase.PUBLISH)
        session, top = self._session, pack_entries([])
        if session.aim.archive_name:
            self._publish_archive()
            return
        if not session.aim.single and session.staging.fresh_target:
            top = self._plan.comparison.scan.top
        policy, files = self._request.on_conflict.value, self._proofs.files
        session.leave_to_first()
        done = session.target.request(PUBLISH, top, policy=policy, files=files)
        session.staging.is_there = False
        self._delivery.renamed = done.renamed
        self._observer.phase(Phase.CLEANUP)
        if done.refused:
            self._proofs.leave_out_unpublished()
        self._reporter.warn(
            "FOLDER_NOT_FINISHED",
            "folders did not take their mode or time",
            done.problems,
            done.problem_count,
        )
        self._proofs.report_state(ParcelState.PUBLISHED)

    def _publish_archive(self) -> None:
        session, keeps = self._session, self._session.keeps_archive_known
        if keeps:
            self._proofs.record_archive()
        session.leave_to_first()
        done = session.target.request(
            PUBLISH_ARCHIVE,
            name=session.aim.archive_name,
            digest=self._delivery.digest,
            policy=self._request.on_conflict.value,
            keep=keeps,
        )
        session.staging.is_there = keeps
        self._delivery.archive = Entry(done.name, FILE, done.size, 0, 0, 0)
        self._observer.phase(Phase.CLEANUP)
        if done.there:
            sentence = f"the target had an identical archive already: {done.there}"
            self._reporter.warned("ARCHIVE_THERE", sentence)
        self._proofs.report_state(ParcelState.PUBLISHED)

    def _remove_source(self) -> None:
        self._observer.phase(Phase.REMOVE_SOURCE)
        there = [entries for entries, _ in self._plan.comparison.proven]
        if there:
            self._session.staging.refuse_same_place()
        self._removed = self._proofs.remove_source(there)
        if not self._session.staging.is_there:  # Else a signal may end the clean-up, if that hangs.
            self._delivery.settled()
        self._reporter.report_left_at_source()
        self._proofs.report_state(ParcelState.SOURCE_REMOVED)
        if self._session.staging.is_there:
            self._observer.phase(Phase.CLEANUP)
            self._session.staging.remove(undo=False)

    def _abandoned(self, error: errors.EngineError) -> errors.EngineError:
        self._abandon(error)
        return error

    def _abandon(self, error: BaseException) -> None:
        """Remove the staging folder, unless it is kept for a resume or belongs to another run.

        If a signal stops the transfer meanwhile, begin again, for the person who waits.
        """
        try:
            self._clear_target(error)
        except errors.Cancelled as stopped:
            self._clear_target(stopped)
            raise

    def _clear_target(self, error: BaseException) -> None:
        began = time.monotonic()
        if isinstance(error, errors.Cancelled):
            self._session.close(done=True)  # A person may be waiting for the end.
        if not self._session.staging.is_there or isinstance(error, _STAGING_OF_ANOTHER):
            return
        if _keeps_after(error, self._request.resume):
            if isinstance(error, errors.EngineError):
                error.kept = True
            error.add_note(
                "the target keeps the data that arrived; a resumed run continues with it"
            )
            return
        self._session.close()
        try:
            leftovers.clean(
                self._session.staging.folder,
                self._session.staging.names,
                self._request.attempt,
                self._observer.alive,
                hasty=isinstance(error, errors.Cancelled),
                staged=self._plan.builder.counts.total() + self._plan.resumed,
                within=leftovers.HASTE_MOST_SECONDS - (time.monotonic() - began),
            )
        except errors.EngineError as trouble:
            error.add_note(f"the staging folder at the target could not be removed: {trouble}")
            self._observer.event(
                "warning",
                "STAGING_LEFT",
                f"the staging folder at the target could not be removed: {trouble}",
                {"folder": self._session.target_found.shown, "reason": str(trouble)},
            )

    def _report(self) -> Report:
        plan, reporter = self._plan, self._reporter
        reporter.last()
        return Report(
            status="partial" if reporter.failures_total else "done",
            mode=self._request.mode,
            verify=self._request.verify_level,
            files=self._proofs.files,
            bytes=self._proofs.bytes,
            files_skipped=plan.comparison.tally.skipped,
            files_removed=self._removed,
            files_resumed=plan.resumed,
            bytes_resumed=plan.bytes_resumed,
            streams=self._streams,
            seconds=time.monotonic() - self._began,
            parcels=len(plan.builder.parcels) + len(plan.builder.last_parcels),
            failures=tuple(reporter.failures),
            failures_total=reporter.failures_total,
            folders_made=self._session.staging.made,
            plan=plan.summary(),
        )


def _keeps_after(error: BaseException, resume: bool) -> bool:
    """True if what has arrived stays after an error; `resume`: a person asked for that."""
    if not isinstance(error, errors.EngineError):  # A bug; the proven entries are still good.
        return resume and isinstance(error, Exception)
    if error.retry == errors.NEEDS_PERSON:  # Perhaps a full disk: only if `resume` is set.
        return resume
    return error.retry == errors.TRANSIENT
