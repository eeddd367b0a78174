"""What a database that is away for a moment, or a bug of ours, may not cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError

import engine
from engine import Phase, leftovers
from jobs.errors import HandedBack, Orphaned
from jobs.events import Note, append
from jobs.models import Job, JobEvent, JobParcel
from jobs.queueing import transitions
from jobs.queueing.attempts import attempt_record, bandwidth_share
from jobs.queueing.transitions import job_move
from jobs.running import attempt_writer, execution, observer
from jobs.running.observer import JobObserver
from jobs.services import job_cancel, job_create
from jobs.states import Status
from jobs.tasks import run_job
from tests.factories import PortalFactory
from tests.rig.lanes import nightly
from tests.rig.planted_code import Plant

pytestmark = pytest.mark.django_db(transaction=True)

FILES = 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with some files."""
    folder = tmp_path / "lab" / "day1"
    folder.mkdir(parents=True)
    for number in range(FILES):
        (folder / f"f{number:02}").write_text(f"content {number}")
    return folder


@pytest.fixture
def launch(oscar: User, source: Path, tmp_path: Path) -> Callable[..., Job]:
    """Launch a job that moves that folder."""
    (tmp_path / "srvtrf").mkdir()
    lab, srvtrf = (
        PortalFactory.create(name=name, root_path=str(tmp_path / name))
        for name in ("lab", "srvtrf")
    )

    def launch(**order: Any) -> Job:
        places = {"source_path": "day1", "target_path": "in"}
        return job_create(by=oscar, source_portal=lab, target_portal=srvtrf, **places, **order)

    return launch


class Away:
    """A database that is away for the first few writes of a phase."""

    def __init__(self, phase: Phase | str, writes: int, look: Callable[[], object]) -> None:
        self._phase, self._left, self._look = phase, writes, look
        self._record = attempt_record
        self.seen: list[object] = []

    def __call__(self, job: Job, **status: Any) -> None:
        if status["phase"] == self._phase and self._left:
            self._left -= 1
            self.seen.append(self._look())
            raise OperationalError("the database is away")
        self._record(job, **status)


def test_a_move_removes_its_source_only_after_the_proof_is_in_the_database(
    launch: Callable[..., Job], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(Phase.REMOVE_SOURCE, 2, lambda: len(list(source.iterdir())))
    monkeypatch.setattr(attempt_writer, "attempt_record", away)
    monkeypatch.setattr(observer, "RENEW_EVERY", 0.05)
    job = launch(mode="move")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, away.seen) == (Status.DONE, [FILES, FILES])
    assert list(source.iterdir()) == []
    (parcel,) = JobParcel.objects.filter(job=job)
    assert (parcel.state, bool(parcel.manifest)) == ("source_removed", True)


def test_the_last_progress_of_a_job_waits_for_the_database(
    launch: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = launch()
    monkeypatch.setattr(attempt_writer, "attempt_record", Away(Phase.CLEANUP, 2, lambda: None))
    monkeypatch.setattr(observer, "RENEW_EVERY", 0.05)
    run_job(str(job.pk))
    job.refresh_from_db()
    (parcel,) = JobParcel.objects.filter(job=job)
    assert (job.status, parcel.state) == (Status.DONE, "published")


def test_an_attempt_that_finds_no_database_as_it_begins_is_tried_again(
    launch: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = bandwidth_share
    outage = [OperationalError("the database is away")]

    def away(job: Job) -> int:
        if outage:
            raise outage.pop()
        return asked(job)

    job = launch()
    monkeypatch.setattr(observer, "bandwidth_share", away)
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.RETRY_WAIT, "DATABASE_AWAY")

    job_move(job, Status.QUEUED, code="RETRIED", message="Its time has come.")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.attempt) == (Status.DONE, 2)


@pytest.fixture
def away_amid_the(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Note]]:
    """Have the database go away as an event of that code is written, twice."""

    def go(code: str) -> list[Note]:
        seen: list[Note] = []

        def away(job: Job, *notes: Note) -> list[JobEvent]:
            found = [note for note in notes if note.code == code]
            seen.extend(found)
            if found and len(seen) <= 2:
                raise OperationalError("the database is away")
            return append(job, *notes)

        monkeypatch.setattr(transitions, "append", away)
        monkeypatch.setattr(execution, "RENEW_EVERY", 0.05)
        return seen

    return go


def test_the_end_of_a_job_waits_for_the_database(
    launch: Callable[..., Job], away_amid_the: Callable[[str], list[Note]]
) -> None:
    """Also when it goes away amid the writing: nothing of that holds, not in memory either."""
    seen = away_amid_the("DONE")
    job = launch()
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.attempt, len(seen)) == (Status.DONE, 1, 3)


@pytest.mark.parametrize(
    ("stop", "code"),
    [(HandedBack("told to end"), "HANDED_BACK"), (Orphaned("nobody watches"), "WORKER_LOST")],
    ids=["told to end", "orphaned"],
)
def test_a_worker_that_gives_its_job_back_waits_for_the_database(
    launch: Callable[..., Job],
    away_amid_the: Callable[[str], list[Note]],
    monkeypatch: pytest.MonkeyPatch,
    stop: Exception,
    code: str,
) -> None:
    """Else it would stay this worker's until the lease runs out."""

    def stops(_: JobObserver) -> None:
        raise stop

    seen = away_amid_the(code)
    monkeypatch.setattr(JobObserver, "checkpoint", stops)
    job = launch()
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.worker, len(seen)) == (Status.QUEUED, "", 3)
    assert job.losses == (code == "WORKER_LOST")


def test_a_job_needs_attention_after_a_lost_connection_and_a_bug(
    launch: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: JobObserver, phase: Phase) -> None:
        if phase is Phase.PUBLISH:
            raise engine.ConnectionLost("the line broke, and what has arrived stays")

    def broken(*_: object, **_options: object) -> None:
        raise ZeroDivisionError("oops")

    job = launch()
    monkeypatch.setattr(JobObserver, "phase", breaks)
    monkeypatch.setattr(execution, "end_after_error", broken)
    with pytest.raises(ZeroDivisionError):
        run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "INTERNAL")


SLOW_REMOVAL = """
import os, time
_rmdir = os.rmdir
def slow(*args, **options):
    time.sleep(2.5)
    return _rmdir(*args, **options)
os.rmdir = slow
"""


@pytest.mark.parametrize("dies", [nightly(False), True])
def test_a_worker_renews_its_lease_during_a_long_cleanup(
    launch: Callable[..., Job],
    oscar: User,
    monkeypatch: pytest.MonkeyPatch,
    plant: Plant,
    dies: bool,
) -> None:
    """In the run that is cancelled, and in the one that clears away after an attempt that died."""
    plant(SLOW_REMOVAL)
    job, renewed = launch(strategy="zip"), []

    class Cancelling(JobObserver):
        def phase(self, phase: Phase) -> None:
            super().phase(phase)
            if phase is Phase.PUBLISH:
                if dies:
                    raise engine.ConnectionLost("the line was cut")
                raise engine.Cancelled("cancelled")

        def alive(self) -> None:
            before = self._writer.saved_at
            super().alive()
            if self._writer.saved_at != before:
                renewed.append(Job.objects.get(pk=job.pk).lease_until)

    monkeypatch.setattr(execution, "JobObserver", Cancelling)
    run_job(str(job.pk))
    if dies:
        job_cancel(Job.objects.get(pk=job.pk), by=oscar)
        run_job(str(job.pk))

    job.refresh_from_db()
    assert job.status == Status.CANCELLED
    assert len(renewed) >= 2
    assert renewed == sorted(set(renewed))


class CancelledAtTheEnd(JobObserver):
    """An observer of a job that is cancelled when all has arrived."""

    def phase(self, phase: Phase) -> None:
        """Cancel it."""
        super().phase(phase)
        if phase is Phase.PUBLISH:
            raise engine.Cancelled("cancelled")


@pytest.mark.parametrize(("breaks", "code"), [(2, "CANCELLED"), (9, "STAGING_LEFT")])
def test_the_cleanup_of_a_cancelled_job_is_tried_again_after_a_lost_connection(
    launch: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    breaks: int,
    code: str,
) -> None:
    left = [breaks]

    def over_a_bad_line(how: Callable[..., None]) -> Callable[..., None]:
        def attempt(*args: Any, **hasty: bool) -> None:
            if left[0]:
                left[0] -= 1
                raise engine.ConnectionLost("the line was cut")
            how(*args, **hasty)

        return attempt

    monkeypatch.setattr(engine, "discard", over_a_bad_line(engine.discard))
    monkeypatch.setattr(leftovers, "clean", over_a_bad_line(leftovers.clean))
    monkeypatch.setattr(execution, "CLEARING_WAITS", (0.01, 0.01))
    monkeypatch.setattr(execution, "JobObserver", CancelledAtTheEnd)

    job = launch()
    run_job(str(job.pk))
    job.refresh_from_db()
    codes = list(job.events.order_by("seq").values_list("code", flat=True))
    assert (job.status, codes[-1]) == (Status.CANCELLED, code)
    assert codes.count("STAGING_LEFT") == (code == "STAGING_LEFT")
    assert bool(list((tmp_path / "srvtrf").iterdir())) == (code == "STAGING_LEFT")
