"""Pause, resume, cancel, draft and schedule: the effect of each in each state."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.utils import timezone

import engine
from jobs.errors import InvalidJob, JobHasEnded, JobNotPartial, NotPausable, NotStartable
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.attempts import job_claim, job_hand_back, job_lost, job_queue_due, job_wait
from jobs.queueing.transitions import job_move
from jobs.running import shutdown
from jobs.running.execution import finish
from jobs.running.outcome import End
from jobs.services import (
    job_cancel,
    job_create,
    job_pause,
    job_resume,
    job_retry_failed,
)
from jobs.states import FINAL, LIVE, PAUSABLE, STARTABLE, Status
from jobs.tasks import run_job
from portals.models import Portal
from tests.jobs.helpers import tree
from tests.rig.events import codes

JobIn = Callable[..., Job]


# --- What each does in each state --------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_a_pause_stops_a_waiting_job_at_once_and_is_requested_of_a_running_one(
    status: Status, job_in: JobIn, oscar: User
) -> None:
    job = job_in(status)
    if status not in PAUSABLE:
        with pytest.raises(NotPausable):
            job_pause(job, by=oscar)
        assert Job.objects.get(pk=job.pk).status == status
        return
    job = job_pause(job, by=oscar)
    running = status is Status.RUNNING
    assert job.status == (Status.RUNNING if running else Status.PAUSED)
    assert (job.pause_requested_at is not None) == running
    assert codes(job) == ["PAUSE_REQUESTED" if running else "PAUSED"]
    assert job.next_run_at is None


@pytest.mark.parametrize("attempt", [0, 3])
@pytest.mark.parametrize("status", list(Status))
def test_a_resume_queues_a_job_that_waits_for_a_person_or_a_time(
    status: Status, attempt: int, job_in: JobIn, oscar: User
) -> None:
    failed = {"tries": 7, "losses": 2, "error_code": "AUTH_FAILED", "error_message": "No."}
    job = job_in(status, attempt=attempt, **failed)
    if status not in STARTABLE:
        with pytest.raises(NotStartable):
            job_resume(job, by=oscar)
        return
    job = job_resume(job, by=oscar)
    assert (job.status, job.next_run_at, job.attempt) == (Status.QUEUED, None, attempt)
    assert (job.tries, job.losses, job.error_code, job.error_message) == (0, 0, "", "")
    assert codes(job) == ["RESUMED" if attempt else "SUBMITTED"]


@pytest.mark.parametrize("status", sorted(LIVE - {Status.RUNNING}))
def test_a_job_that_never_began_is_cancelled_at_once(
    status: Status, job_in: JobIn, oscar: User
) -> None:
    job = job_cancel(job_in(status), by=oscar)
    assert (job.status, codes(job)) == (Status.CANCELLED, ["CANCELLED"])
    assert "oscar" in job.events.get().message
    assert job.finished_at


@pytest.mark.parametrize("status", sorted(LIVE - {Status.DRAFT, Status.SCHEDULED}))
def test_a_cancelled_job_that_has_begun_waits_for_a_worker_to_remove_its_data(
    status: Status, job_in: JobIn, oscar: User
) -> None:
    job = job_in(status, attempt=2)
    for _ in range(2):  # A second request changes nothing.
        job = job_cancel(job, by=oscar)
        assert job.status == (Status.RUNNING if status is Status.RUNNING else Status.QUEUED)
        assert job.cancel_requested_at is not None
        assert codes(job) == ["CANCEL_REQUESTED"]


@pytest.mark.parametrize("status", sorted(FINAL))
def test_an_ended_job_can_be_neither_cancelled_paused_nor_resumed(
    status: Status, job_in: JobIn, oscar: User
) -> None:
    job = job_in(status)
    for act, error in (
        (job_cancel, JobHasEnded),
        (job_pause, NotPausable),
        (job_resume, NotStartable),
    ):
        with pytest.raises(error):
            act(job, by=oscar)
    assert codes(job) == []


def test_a_second_pause_of_a_running_job_adds_no_second_request(job_in: JobIn, oscar: User) -> None:
    job = job_pause(job_in(Status.RUNNING), by=oscar)
    assert not job.is_pausable
    assert codes(job_pause(job, by=oscar)) == ["PAUSE_REQUESTED"]


def test_a_cancelled_job_cannot_be_paused(job_in: JobIn, oscar: User) -> None:
    job = job_cancel(job_in(Status.RUNNING), by=oscar)
    with pytest.raises(NotPausable):
        job_pause(job, by=oscar)
    assert not job.is_pausable


def test_a_request_to_pause_does_not_outlive_the_pause(job_in: JobIn, oscar: User) -> None:
    job = job_pause(job_in(Status.RUNNING), by=oscar)
    job_move(job, Status.PAUSED, code="PAUSED", message="Paused.")
    assert job_resume(job, by=oscar).pause_requested_at is None


# --- Asked for while an attempt is ending otherwise --------------------------

OTHER_ENDS = [
    End(Status.RETRY_WAIT, "CONNECTION_LOST", "The line broke."),
    End(Status.NEEDS_ATTENTION, "AUTH_FAILED", "Refused."),
    End(Status.PAUSED, "PAUSED", "Paused."),
]


@pytest.mark.parametrize("end", OTHER_ENDS, ids=lambda end: str(end.status))
def test_a_cancellation_is_not_lost_when_the_attempt_ends_for_another_reason(
    end: End, job_in: JobIn, oscar: User
) -> None:
    job = job_in(Status.RUNNING)
    job_cancel(Job.objects.get(pk=job.pk), by=oscar)
    finish(job, end)
    job.refresh_from_db()
    assert (job.status, job.next_run_at) == (Status.QUEUED, None)
    assert job.cancel_requested_at
    assert codes(job) == ["CANCEL_REQUESTED", end.code]


def test_a_pause_is_not_lost_when_the_attempt_is_to_be_tried_again(
    job_in: JobIn, oscar: User
) -> None:
    job = job_in(Status.RUNNING)
    job_pause(Job.objects.get(pk=job.pk), by=oscar)
    finish(job, OTHER_ENDS[0])
    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.PAUSED, "PAUSED")
    assert "The line broke." in job.events.last().message


def test_a_pause_is_not_lost_when_the_worker_ends(job_in: JobIn, oscar: User) -> None:
    for end in (job_hand_back, lambda job: job_lost(job, reason="killed")):
        job = job_in(Status.RUNNING)
        job_pause(Job.objects.get(pk=job.pk), by=oscar)
        assert end(job).status == Status.PAUSED


def test_a_job_that_finishes_after_a_stop_request_ends_done(job_in: JobIn, oscar: User) -> None:
    for ask in (job_cancel, job_pause):
        job = job_in(Status.RUNNING)
        ask(Job.objects.get(pk=job.pk), by=oscar)
        finish(job, End(Status.DONE, "DONE", "Copied."))
        assert Job.objects.get(pk=job.pk).status == Status.DONE


# --- Drafts and schedules ----------------------------------------------------


def test_a_draft_waits_for_a_user_to_start_it(oscar: User, order: dict[str, Any]) -> None:
    job = job_create(by=oscar, draft=True, **order)
    assert (job.status, job.queued_at, codes(job)) == (Status.DRAFT, None, ["CREATED"])
    assert job_claim(worker="w") is None
    assert job_queue_due() is None
    job = job_resume(job, by=oscar)
    assert job.queued_at
    assert job_claim(worker="w") == job


def test_a_scheduled_job_begins_when_its_time_has_come(oscar: User, order: dict[str, Any]) -> None:
    job = job_create(by=oscar, start_at=timezone.now() + timedelta(hours=1), **order)
    assert (job.status, codes(job)) == (Status.SCHEDULED, ["CREATED"])
    assert job_queue_due() is None
    assert job_claim(worker="w") is None
    Job.objects.filter(pk=job.pk).update(next_run_at=Now() - timedelta(seconds=1))
    assert job_queue_due() == job
    job.refresh_from_db()
    assert (job.status, job.next_run_at, codes(job)[-1]) == (Status.QUEUED, None, "DUE")


@pytest.mark.parametrize(("hours", "status"), [(1, Status.SCHEDULED), (-1, Status.QUEUED)])
def test_a_submitted_draft_is_scheduled_or_queued_if_its_start_time_has_passed(
    hours: int, status: Status, oscar: User, order: dict[str, Any]
) -> None:
    when = timezone.now() + timedelta(hours=hours)
    job = job_create(by=oscar, draft=True, start_at=when, **order)
    assert (job.status, job.next_run_at) == (Status.DRAFT, when)
    assert job_queue_due() is None
    job = job_resume(job, by=oscar)
    assert (job.status, codes(job)[-1]) == (status, "SUBMITTED")
    if status is Status.SCHEDULED:
        assert job.next_run_at == when
        assert job_resume(job, by=oscar).status == Status.QUEUED


def test_a_draft_to_a_busy_target_is_refused_when_started(
    oscar: User, order: dict[str, Any], settings: Any
) -> None:
    settings.KETTER_BUSY_TARGET = "refuse"
    draft = job_create(by=oscar, draft=True, **order)
    first = job_create(by=oscar, **order)
    with pytest.raises(InvalidJob, match=str(first)) as refused:
        job_resume(draft, by=oscar)
    assert refused.value.code == "TARGET_BUSY"
    job_cancel(first, by=oscar)
    assert job_resume(draft, by=oscar).status == Status.QUEUED


@pytest.mark.django_db(transaction=True)
def test_the_reaper_queues_scheduled_and_retry_wait_jobs_that_are_due(
    job_in: JobIn, clean_redis: object
) -> None:
    due = [
        job_in(status, next_run_at=Now() - timedelta(seconds=1))
        for status in (Status.SCHEDULED, Status.RETRY_WAIT)
    ]
    job_in(Status.SCHEDULED)
    assert set(reaper.tick().queued) == {job.pk for job in due}
    assert sorted(codes(due[0]) + codes(due[1])) == ["DUE", "RETRIED"]


# --- With the real engine ----------------------------------------------------


@pytest.fixture
def source(lab: Portal) -> Path:
    """A small tree at the source portal."""
    folder = Path(lab.root_path) / "day1"
    for number in range(30):
        path = folder / f"d{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000))
    return folder


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_retry_of_a_partial_job_sends_only_the_files_that_failed(
    mode: str, oscar: User, order: dict[str, Any], source: Path, srvtrf: Portal
) -> None:
    sent = tree(source)
    os.mkfifo(source / "pipe")
    old = job_create(by=oscar, mode=mode, **order)
    run_job("")
    old.refresh_from_db()
    assert (old.status, old.files_failed) == (Status.PARTIAL, 1)
    (source / "pipe").unlink()
    (source / "pipe").write_bytes(b"a file by now")
    arrived = Path(srvtrf.root_path) / "in/day1"
    before = {path: path.stat().st_ino for path in arrived.rglob("f*")}

    new = job_retry_failed(old, by=oscar)
    run_job("")

    new.refresh_from_db()
    assert (new.status, new.relaunched_from) == (Status.DONE, old)
    assert sum(parcel.bytes for parcel in new.parcels.all()) == len(b"a file by now")
    assert (new.files_done, new.files_skipped) == (1, 30 if mode == "copy" else 0)
    assert {path: path.stat().st_ino for path in arrived.rglob("f*")} == before
    assert tree(arrived) == sent | {"pipe": b"a file by now"}
    assert tree(source) == ({} if mode == "move" else tree(arrived))
    assert Job.objects.get(pk=old.pk).status == Status.PARTIAL


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.PARTIAL}))
def test_a_retry_of_failed_files_is_refused_unless_the_job_is_partial(
    status: Status, job_in: JobIn, oscar: User
) -> None:
    with pytest.raises(JobNotPartial):
        job_retry_failed(job_in(status), by=oscar)


def test_a_job_that_ends_done_shows_no_earlier_error(
    oscar: User, order: dict[str, Any], source: Path
) -> None:
    job = job_create(by=oscar, **order)
    running = job_claim(worker="w")
    job_wait(running, code="CONNECTION_LOST", message="The line broke.", advanced=False)
    job_resume(job, by=oscar)
    run_job("")
    job.refresh_from_db()
    assert (job.status, job.error_code, job.error_message) == (Status.DONE, "", "")


def test_a_cancelled_job_removes_its_staging_folder_even_if_its_source_is_disabled(
    oscar: User, order: dict[str, Any], source: Path, lab: Portal, srvtrf: Portal
) -> None:
    job = job_create(by=oscar, **order)
    running = job_claim(worker="w")
    target = Path(srvtrf.root_path) / "in/day1"
    target.mkdir(parents=True)
    staged = target / f".ketter-{job.id.hex}-{job.staging_key}.part/a1"
    staged.parent.mkdir(mode=0o700)
    staged.mkdir()
    (staged.parent / "fence").write_text("1")
    job_wait(running, code="CONNECTION_LOST", message="The line broke.", advanced=False)
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    job_cancel(job, by=oscar)
    run_job("")
    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.CANCELLED, "CANCELLED")
    assert not staged.parent.exists()


@pytest.mark.parametrize("shuts_down", [True, False])
def test_an_agent_lost_during_a_worker_shutdown_does_not_count_as_a_failure(
    shuts_down: bool,
    oscar: User,
    order: dict[str, Any],
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal to a whole group of processes ends the agents as well."""

    def run(*_: Any) -> engine.Report:
        monkeypatch.setattr(shutdown, "_requested", shuts_down)
        raise engine.AgentLost("The agent was ended by SIGTERM")

    monkeypatch.setattr(engine, "run", run)
    job = job_create(by=oscar, **order)
    run_job("")
    job.refresh_from_db()
    end = (Status.QUEUED, 0) if shuts_down else (Status.RETRY_WAIT, 1)
    assert (job.status, job.tries) == end
    assert codes(job)[-1] == ("HANDED_BACK" if shuts_down else "AGENT_LOST")
