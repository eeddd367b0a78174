"""`run_job` with the real engine in this process: how each end is recorded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils import timezone

import engine
from engine.types import ParcelKind, ParcelReport, ParcelState, Phase, Progress
from jobs.errors import Orphaned
from jobs.models import Job, JobEvent
from jobs.running import attempt_writer, execution
from jobs.running.execution import clear_after_end
from jobs.running.observer import JobObserver
from jobs.running.outcome import end_of
from jobs.running.request import request_for, transfer_id
from jobs.services import job_cancel, job_create
from jobs.states import Status
from jobs.tasks import run_job
from portals.models import Portal, PortalState
from portals.services import portal_update
from tests.jobs.helpers import tree
from tests.rig.events import codes

#: Makes a job with the fields that a test names.
MakeJob = Callable[..., Job]
PINNED = {"host_key": "ssh-ed25519 AAAA"}


def write_tree(root: Path) -> dict[str, bytes]:
    """A small tree with entries that are easily forgotten, as relative path -> content."""
    content = {"a.txt": b"alpha", "sub/.hidden": b"h" * 5000, "sub/deep/empty": b"", "ünï": b"x"}
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return content


def stage_half(folder: Path, job: Job) -> None:
    """Leave in a target folder what attempt 1 of a job leaves if it dies."""
    staged = folder / f".ketter-{transfer_id(job)}.part" / "a1"
    staged.parent.mkdir(mode=0o700)
    staged.mkdir()
    (staged.parent / "fence").write_text("1")
    (staged / "half.mov").write_bytes(b"ha")


@pytest.fixture
def launched(oscar: User, order: dict[str, Any], lab: Portal) -> MakeJob:
    """Launch a job over a small tree and run it here; returns it as it ended."""
    write_tree(Path(lab.root_path) / "day1")

    def run(**changes: Any) -> Job:
        job = job_create(by=oscar, **{**order, **changes})
        run_job(str(job.pk))
        return Job.objects.get(pk=job.pk)

    return run


def last_event(job: Job) -> JobEvent:
    """The last event of a job."""
    return job.events.order_by("-seq")[0]


def test_run_job_ends_a_copy_as_done_and_records_files_bytes_and_proof(
    launched: MakeJob, lab: Portal, srvtrf: Portal
) -> None:
    job = launched()
    sent, arrived = Path(lab.root_path) / "day1", Path(srvtrf.root_path) / "in/day1"
    assert tree(arrived) == tree(sent) != {}
    assert (job.status, job.error_code, job.lease_until) == (Status.DONE, "", None)
    assert (job.files_done, job.bytes_done, job.percent) == (4, 5006, 100)
    assert codes(job)[:2] == ["CREATED", "STARTED"]
    end = last_event(job)
    assert end.code == "DONE"
    assert end.data["files"] == 4
    assert end.data["bytes"] == 5006
    assert end.data["verify"] == "stream"
    assert end.data["seconds"] > 0
    assert end.data["rate"] > 0
    assert job.plan is not None
    parcel = job.parcels.get()
    assert (parcel.state, parcel.attempt) == ("published", 1)
    assert parcel.manifest


def test_run_job_ends_a_move_as_done_with_nothing_left_at_the_source(
    launched: MakeJob, lab: Portal, srvtrf: Portal
) -> None:
    before = tree(Path(lab.root_path) / "day1")
    job = launched(mode="move")
    assert job.status == Status.DONE
    assert tree(Path(srvtrf.root_path) / "in/day1") == before
    assert tree(Path(lab.root_path)) == {"day1": None}  # The folder itself stays.
    end = last_event(job)
    assert (end.data["verify"], end.data["files_removed"]) == ("readback", 4)


@pytest.mark.parametrize(
    ("source_path", "code", "words"),
    [("nowhere", "SOURCE_MISSING", "nowhere"), ("way-out", "PATH_OUTSIDE_ROOT", "")],
)
def test_run_job_fails_when_the_source_is_missing_or_a_symlink_out_of_the_root(
    source_path: str,
    code: str,
    words: str,
    launched: MakeJob,
    lab: Portal,
    srvtrf: Portal,
    tmp_path: Path,
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("not yours")
    (Path(lab.root_path) / "way-out").symlink_to(tmp_path / "outside")
    job = launched(source_path=source_path)
    assert (job.status, job.error_code) == (Status.FAILED, code)
    assert words in job.error_message
    end = last_event(job)
    assert (end.code, end.level, end.message) == (code, "error", job.error_message)
    assert tree(Path(srvtrf.root_path)) == {}


def test_run_job_does_not_overwrite_a_different_file(launched: MakeJob, srvtrf: Portal) -> None:
    there = Path(srvtrf.root_path) / "in/day1"
    there.mkdir(parents=True)
    (there / "a.txt").write_text("something else")
    job = launched()
    assert job.status in {Status.FAILED, Status.PARTIAL}
    assert (there / "a.txt").read_text() == "something else"
    assert "TARGET_EXISTS" in str(last_event(job).data) + job.error_code


def test_run_job_needs_attention_when_a_portal_was_disabled_after_the_launch(
    oscar: User, order: dict[str, Any], lab: Portal
) -> None:
    job = job_create(by=oscar, **order)
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    run_job(str(job.pk))
    job.refresh_from_db()
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "PORTAL_DISABLED")
    assert "Enable the portal" in job.error_message


@pytest.mark.parametrize(
    ("portal", "status", "code"),
    [
        ({"port": 1, **PINNED}, Status.RETRY_WAIT, "CONNECTION_REFUSED"),
        ({"host": "no-such-host.invalid", **PINNED}, Status.RETRY_WAIT, "HOST_UNREACHABLE"),
        ({}, Status.NEEDS_ATTENTION, "HOST_KEY_UNKNOWN"),
    ],
)
def test_run_job_waits_for_a_retry_or_a_person_when_the_host_cannot_be_used(
    portal: dict[str, Any], status: Status, code: str, launched: MakeJob, srvtrf: Portal
) -> None:
    portal = {"host": "127.0.0.1", "username": "nobody", **portal}
    Portal.objects.filter(pk=srvtrf.pk).update(kind="ssh", machine="", **portal)
    srvtrf.refresh_from_db()
    job = launched(target_portal=srvtrf)
    assert (job.status, job.error_code) == (status, code)
    assert last_event(job).message.startswith(job.error_message)
    assert (job.next_run_at is not None) == (status is Status.RETRY_WAIT)


def test_run_job_ends_partial_and_names_the_entry_that_was_not_delivered(
    launched: MakeJob, lab: Portal, srvtrf: Portal
) -> None:
    os.mkfifo(Path(lab.root_path) / "day1/pipe")
    job = launched()
    assert (job.status, job.error_code, job.files_failed) == (Status.PARTIAL, "PARTIAL", 1)
    assert job.percent < 100
    end = last_event(job)
    assert (end.level, end.data["failures_total"]) == ("warning", 1)
    assert end.data["failures"][0]["path"] == "pipe"
    arrived = tree(Path(srvtrf.root_path) / "in/day1")
    assert len([name for name, content in arrived.items() if content is not None]) == 4


def test_run_job_starts_a_job_once_when_its_wake_up_arrives_twice(launched: MakeJob) -> None:
    job = launched()
    run_job(str(job.pk))
    assert codes(job).count("STARTED") == 1


def test_a_wake_up_for_a_running_job_leaves_one_log_line_and_changes_nothing(
    job_in: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 8: same job delivered twice by RQ."""
    job = job_in(Status.RUNNING)
    before = Job.objects.values().get(pk=job.pk)
    with caplog.at_level("DEBUG", "jobs"):
        run_job(str(job.pk))
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert str(job.pk) in caplog.text
    assert Job.objects.values().get(pk=job.pk) == before
    assert not job.events.exists()


def test_run_job_records_a_bug_as_internal_and_raises_it(
    launched: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_job: Job) -> engine.Request:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(execution, "request_for", broken)
    with pytest.raises(ZeroDivisionError):
        launched()
    job = Job.objects.get()
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "INTERNAL")
    assert "please report them" in job.error_message


class Meddler(JobObserver):
    """An observer during whose transfer another process changes the row."""

    def __init__(self, job: Job, meddle: Callable[[Job], object]) -> None:
        super().__init__(job)
        self._meddle = meddle

    def phase(self, phase: Phase) -> None:
        super().phase(phase)
        if phase is Phase.SCAN:
            self._meddle(Job.objects.get(pk=self._job.pk))
            self._writer.saved_at = self._asked = float("-inf")
            self.checkpoint()


@pytest.fixture
def meddled(
    launched: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Job], object]], Job]:
    """Run a job during which something happens to its row."""

    def run(meddle: Callable[[Job], object]) -> Job:
        monkeypatch.setattr(execution, "JobObserver", lambda job: Meddler(job, meddle))
        return launched()

    return run


def test_run_job_stops_a_cancelled_job_and_leaves_nothing_at_the_target(
    meddled: MakeJob, oscar: User, srvtrf: Portal
) -> None:
    job = meddled(lambda job: job_cancel(job, by=oscar))
    assert job.status == Status.CANCELLED
    assert codes(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    assert tree(Path(srvtrf.root_path)) == {}


@pytest.mark.parametrize("file", [False, True])
def test_a_job_cancelled_after_its_worker_died_leaves_no_staged_data(
    launched: MakeJob,
    job_in: MakeJob,
    lab: Portal,
    srvtrf: Portal,
    file: bool,
) -> None:
    """Attempt 1 died with something staged; the job is cancelled; attempt 2 clears away."""
    root = Path(srvtrf.root_path)
    (root / "out").mkdir()
    (root / "out" / "older").write_bytes(b"stays")
    job = job_in(
        Status.QUEUED,
        attempt=1,
        source_portal=lab,
        target_portal=srvtrf,
        target_path="out/name.mov" if file else "out",
        cancel_requested_at=timezone.now(),
    )
    stage_half(root / "out", job)

    run_job(str(job.pk))

    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.CANCELLED, "CANCELLED")
    assert [path.name for path in root.rglob("*")] == ["out", "older"]


def test_the_staging_of_a_replaced_attempt_goes_though_the_source_is_disabled(
    job_in: MakeJob, lab: Portal, srvtrf: Portal
) -> None:
    """The job has ended; its first worker, frozen until now, sees that it was replaced."""
    root = Path(srvtrf.root_path)
    (root / "out").mkdir()
    portals = {"source_portal": lab, "target_portal": srvtrf, "target_path": "out"}
    job = job_in(Status.DONE, attempt=2, **portals)
    stage_half(root / "out", job)
    portal_update(lab, state=PortalState.DISABLED)

    clear_after_end(Job.objects.get(pk=job.pk))

    assert [path.name for path in root.rglob("*")] == ["out"]


def test_run_job_stops_without_an_event_when_another_attempt_replaces_it(meddled: MakeJob) -> None:
    job = meddled(lambda job: Job.objects.filter(pk=job.pk).update(attempt=2, worker="w2"))
    assert (job.status, job.attempt, job.worker) == (Status.RUNNING, 2, "w2")
    assert codes(job)[-1] == "STARTED"


def test_run_job_hands_the_job_back_when_its_parent_process_is_gone(
    meddled: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = meddled(lambda job: monkeypatch.setattr(os, "getppid", lambda: -1))
    assert job.status == Status.QUEUED
    assert codes(job)[-1] == "WORKER_LOST"


def test_a_request_has_no_more_streams_than_the_portals_allow(job_in: MakeJob) -> None:
    job = job_in(Status.RUNNING, streams=8, attempt=3)
    job.source_portal.max_streams = 2
    request = request_for(job)
    assert (request.streams, request.attempt, request.transfer_id) == (
        2,
        3,
        f"{job.pk.hex}-{job.staging_key}",
    )
    job.staging_key = ""  # It was made before there were any.
    assert request_for(job).transfer_id == job.pk.hex


def test_the_observer_writes_reports_at_most_once_a_second(
    job_in: MakeJob, django_assert_num_queries: Any
) -> None:
    observer = JobObserver(job_in(Status.RUNNING))
    observer.checkpoint()
    with django_assert_num_queries(0):
        for done in range(1000):
            observer.progress(Progress(files_total=1000, files_done=done))
            observer.parcel(ParcelReport(1, ParcelKind.ZIP, 1, 1, ParcelState.SENDING))
            observer.checkpoint()


def test_the_observer_keeps_reports_during_a_short_outage_of_the_database(
    job_in: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_in(Status.RUNNING)
    observer = JobObserver(job)
    with monkeypatch.context() as away:
        away.setattr(attempt_writer, "attempt_record", _away)
        away.setattr(connection, "close", lambda: None)
        observer.event("info", "FIRST", "While the database was away.", {})
        observer.progress(Progress(files_total=2, files_done=1))
        observer.save()
    observer.event("info", "SECOND", "It is back.", {})
    observer.save()
    job.refresh_from_db()
    assert codes(job) == ["FIRST", "SECOND"]
    assert job.files_done == 1


def test_the_observer_stops_when_the_database_is_away_for_as_long_as_the_lease(
    job_in: MakeJob, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.KETTER_LEASE_SECONDS = 0
    observer = JobObserver(job_in(Status.RUNNING))
    monkeypatch.setattr(attempt_writer, "attempt_record", _away)
    monkeypatch.setattr(connection, "close", lambda: None)
    with pytest.raises(engine.Replaced):
        observer.checkpoint()


def test_the_last_event_names_100_failures_and_counts_them_all(job_in: MakeJob) -> None:
    failures = tuple(engine.EntryFailure(f"f{n}", "X", "No.") for n in range(250))
    report = engine.Report(
        status="partial",
        mode=engine.Mode.COPY,
        verify=engine.Verify.STREAM,
        files=1,
        bytes=1,
        files_skipped=0,
        files_removed=0,
        files_resumed=0,
        bytes_resumed=0,
        streams=1,
        seconds=1.0,
        parcels=1,
        failures=failures,
        failures_total=5000,
    )
    job = job_in(Status.RUNNING)
    execution.finish(job, end_of(report))
    data = job.events.get().data
    assert (len(data["failures"]), data["failures_total"], job.files_failed) == (100, 5000, 5000)
    assert job.status == Status.PARTIAL


def test_the_orphaned_error_is_a_kind_of_replaced_error() -> None:
    assert issubclass(Orphaned, engine.Replaced)


def _away(*_args: Any, **_kwargs: Any) -> None:
    raise OperationalError("the database is away")
