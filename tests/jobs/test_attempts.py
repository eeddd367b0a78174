"""Claiming, renewing, losing: what a running attempt may write, and until when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now

from engine.errors import Replaced
from engine.types import ParcelKind, ParcelReport, ParcelState, Phase, Progress
from jobs.events import Note
from jobs.models import Job, JobEvent
from jobs.queueing.attempts import MAX_LOSSES, attempt_record, job_claim, job_lost, job_renew
from jobs.running.observer import JobObserver
from jobs.services import job_cancel, job_resume
from jobs.states import Status
from tests.rig.jobs_events import event_add
from tests.rig.jobs_threads import in_threads


def test_a_claim_starts_a_queued_job_with_a_lease_and_an_event(job_in: Callable[..., Job]) -> None:
    job_in(Status.QUEUED)
    job = job_claim(worker="w1")
    assert job is not None
    assert (job.status, job.attempt, job.worker) == (Status.RUNNING, 1, "w1")
    assert job.lease_until
    assert job.heartbeat_at
    assert job.lease_until - job.heartbeat_at == timedelta(seconds=60)
    event = job.events.get()
    assert (event.code, event.attempt) == ("STARTED", 1)
    assert "w1" in event.message


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.QUEUED}))
def test_a_claim_finds_no_job_that_is_not_queued(
    status: Status, job_in: Callable[..., Job]
) -> None:
    job_in(status)
    assert job_claim(worker="w2") is None
    assert not JobEvent.objects.exists()


def test_a_new_attempt_deletes_planned_parcels_and_keeps_proven_ones(
    job_in: Callable[..., Job],
) -> None:
    job = job_in(Status.RUNNING)
    planned = ParcelReport(1, ParcelKind.ZIP, 3, 30, ParcelState.SENDING)
    proven = ParcelReport(2, ParcelKind.ZIP, 3, 30, ParcelState.VERIFIED, "d" * 64, b"manifest")
    attempt_record(job, progress=Progress(), phase="", parcels=[planned, proven])
    job_lost(job, reason="killed")
    job_claim(worker="w2")
    assert list(job.parcels.values_list("number", "attempt")) == [(2, 1)]

    again = ParcelReport(2, ParcelKind.ZIP, 1, 10, ParcelState.VERIFIED, "e" * 64, b"other")
    job.refresh_from_db()
    attempt_record(job, progress=Progress(), phase="", parcels=[again])
    digests = job.parcels.values_list("attempt", "digest")
    assert list(digests) == [(1, "d" * 64), (2, "e" * 64)]


@pytest.mark.django_db(transaction=True)
def test_only_one_of_eight_simultaneous_claims_gets_the_job(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.QUEUED)
    claims = in_threads(8, lambda: job_claim(worker="w"))
    assert len([claim for claim in claims if claim]) == 1
    assert Job.objects.get(pk=job.pk).attempt == 1
    assert job.events.count() == 1


@pytest.mark.django_db(transaction=True)
def test_events_are_numbered_without_gaps_when_many_threads_write(
    job_in: Callable[..., Job],
) -> None:
    job = job_in(Status.RUNNING)

    def write() -> None:
        for _ in range(10):
            event_add(job, code="TEST", message="One of many.")

    in_threads(6, write)
    assert list(job.events.values_list("seq", flat=True)) == list(range(1, 61))


def test_a_renewal_extends_the_lease_and_writes_the_counters(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING, lease_until=Now() + timedelta(seconds=1))
    progress = Progress(files_total=9, files_done=4, bytes_total=100, bytes_done=50)
    job_renew(job, progress=progress, phase=Phase.TRANSFER)
    job.refresh_from_db()
    assert (job.files_done, job.bytes_done, job.percent, job.phase) == (4, 50, 50, "transfer")
    assert job.lease_until
    assert job.heartbeat_at
    assert job.lease_until - job.heartbeat_at == timedelta(seconds=60)


@pytest.mark.parametrize(
    "change", [{"attempt": 2}, {"status": "queued", "lease_until": None}, {"status": "cancelled"}]
)
def test_an_attempt_that_was_replaced_is_stopped_and_writes_nothing(
    change: dict[str, object], job_in: Callable[..., Job]
) -> None:
    job = job_in(Status.RUNNING)
    Job.objects.filter(pk=job.pk).update(**change)
    parcel = ParcelReport(1, ParcelKind.ZIP, 3, 30, ParcelState.VERIFIED)
    with pytest.raises(Replaced):
        attempt_record(
            job,
            progress=Progress(files_done=5),
            phase="transfer",
            notes=[Note("LATE", "Too late.")],
            parcels=[parcel],
        )
    assert Job.objects.get(pk=job.pk).files_done == 0
    assert not job.events.exists()
    assert not job.parcels.exists()


def test_a_parcel_keeps_its_manifest_when_a_later_report_has_none(
    job_in: Callable[..., Job],
) -> None:
    job = job_in(Status.RUNNING)
    proven = ParcelReport(1, ParcelKind.ZIP, 3, 30, ParcelState.VERIFIED, "d" * 64, b"manifest")
    other = ParcelReport(2, ParcelKind.FILE, 1, 10, ParcelState.SENDING)
    attempt_record(job, progress=Progress(), phase="", parcels=[proven, other])
    published = ParcelReport(1, ParcelKind.ZIP, 3, 30, ParcelState.PUBLISHED)
    attempt_record(job, progress=Progress(), phase="", parcels=[published])
    first, second = job.parcels.order_by("number")
    assert (first.state, first.digest) == ("published", "d" * 64)
    assert bytes(first.manifest or b"") == b"manifest"
    assert (second.state, second.manifest) == ("sending", None)


def test_an_event_escapes_values_that_postgres_cannot_store(job_in: Callable[..., Job]) -> None:
    job = job_in(Status.RUNNING)
    data = {"na\0me": ["\udcff", {"x": "a\0b"}], "n": 1, "nan": float("nan")}
    event = event_add(job, code="ODD", message="a\0b\udcff", data=data)
    event.refresh_from_db()
    assert event.message == "a\\x00b\\udcff"
    assert event.data == {
        "na\\x00me": ["\\udcff", {"x": "a\\x00b"}],
        "n": 1,
        "nan": "nan",
    }


def test_a_cancellation_uses_the_current_status_not_the_one_read_earlier(
    job_in: Callable[..., Job], oscar: User
) -> None:
    stale = job_in(Status.QUEUED)
    job_claim(worker="w1")
    assert job_cancel(stale, by=oscar).status == Status.RUNNING
    assert stale.cancel_requested_at is not None


def test_a_lost_job_is_queued_again_and_its_event_names_the_worker(
    job_in: Callable[..., Job],
) -> None:
    job = job_lost(job_in(Status.RUNNING, worker="lab.77"), reason="killed")
    assert job.status == Status.QUEUED
    event = job.events.get()
    assert (event.code, event.level, event.data["worker"]) == ("WORKER_LOST", "warning", "lab.77")
    again = job_claim(worker="w2")
    assert again
    assert again.attempt == 2


def test_a_cancelled_lost_job_stays_queued_so_that_an_attempt_removes_its_data(
    job_in: Callable[..., Job], oscar: User
) -> None:
    lost = job_lost(job_in(Status.RUNNING, attempt=1), reason="killed")
    job = job_cancel(lost, by=oscar)
    assert (job.status, job.cancel_requested_at is None) == (Status.QUEUED, False)


def test_a_job_that_lost_too_many_workers_needs_attention_and_resumes_with_no_losses(
    job_in: Callable[..., Job], oscar: User
) -> None:
    job = job_lost(job_in(Status.RUNNING, losses=MAX_LOSSES - 1), reason="killed")
    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "WORKER_LOST")
    assert f"the {MAX_LOSSES}th in a row. Find out what ends the workers" in job.error_message
    job = job_resume(job, by=oscar)
    assert (job.status, job.losses) == (Status.QUEUED, 0)


def test_a_cancelled_job_that_lost_too_many_workers_ends_and_reports_staged_data(
    job_in: Callable[..., Job], oscar: User
) -> None:
    running = job_in(Status.RUNNING, losses=MAX_LOSSES - 1, attempt=MAX_LOSSES)
    job_cancel(Job.objects.get(pk=running.pk), by=oscar)
    job = job_lost(running, reason="killed")
    assert job.status == Status.CANCELLED
    event = job.events.order_by("-seq")[0]
    assert (event.code, event.level) == ("STAGING_LEFT", "error")


@pytest.mark.parametrize(
    ("before", "now", "losses"), [(None, 0, 7), (None, 5, 0), (5, 5, 7), (5, 6, 0)]
)
def test_an_attempt_that_resumes_more_than_the_one_before_resets_the_losses(
    job_in: Callable[..., Job], before: int | None, now: int, losses: int
) -> None:
    """So a job that gets on outlives as many workers as it takes."""
    plan = None if before is None else {"bytes_resumed": before}
    job = job_in(Status.RUNNING, losses=7, plan=plan)
    observer = JobObserver(job)
    observer.planned({"bytes_resumed": now})
    observer.save()
    lost = job_lost(job, reason="killed")
    assert (lost.status, lost.losses) == (Status.QUEUED, losses + 1)
