"""The one table of moves, and the one function that makes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from django.db import IntegrityError
from django.utils import timezone

from jobs.errors import IllegalMove, StaleJob
from jobs.models import Job, JobEvent
from jobs.queueing.transitions import job_move
from jobs.states import FINAL, LIVE, TIMED, TRANSITIONS, Status

MOVES = {
    ("draft", "scheduled"),
    ("draft", "queued"),
    ("draft", "cancelled"),
    ("scheduled", "queued"),
    ("scheduled", "cancelled"),
    ("queued", "running"),
    ("queued", "paused"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "retry_wait"),
    ("running", "paused"),
    ("running", "needs_attention"),
    ("retry_wait", "queued"),
    ("retry_wait", "paused"),
    ("retry_wait", "cancelled"),
    ("paused", "queued"),
    ("paused", "cancelled"),
    ("needs_attention", "queued"),
    ("needs_attention", "cancelled"),
    ("running", "done"),
    ("running", "partial"),
    ("running", "failed"),
    ("running", "cancelled"),
}


def test_the_transition_table_has_the_moves_of_the_architecture_and_no_others() -> None:
    table = {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets}
    assert table == MOVES
    assert {*FINAL, *LIVE} == set(Status)
    assert not FINAL & LIVE


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_job_move_makes_exactly_the_moves_of_the_table(
    before: Status, after: Status, job_in: Callable[..., Job]
) -> None:
    job = job_in(before)
    if (before, after) in MOVES:
        when = {"next_run_at": timezone.now()} if after in TIMED else {}
        job_move(job, after, code="TEST", message="Moved.", **when)
        assert Job.objects.get(pk=job.pk).status == after == job.status
        assert [(e.seq, e.code) for e in job.events.all()] == [(1, "TEST")]
    else:
        with pytest.raises(IllegalMove):
            job_move(job, after, code="TEST", message="Moved.")
        assert Job.objects.get(pk=job.pk).status == before
        assert not JobEvent.objects.exists()


def test_job_move_refuses_the_second_of_two_racing_moves(job_in: Callable[..., Job]) -> None:
    mine = job_in(Status.RUNNING)
    theirs = Job.objects.get(pk=mine.pk)
    job_move(theirs, Status.DONE, code="DONE", message="Done.")
    with pytest.raises(StaleJob):
        job_move(mine, Status.FAILED, code="FAILED", message="Failed.")
    assert [e.code for e in mine.events.all()] == ["DONE"]
    assert Job.objects.get(pk=mine.pk).status == Status.DONE


def test_job_move_refuses_a_move_by_an_older_attempt(job_in: Callable[..., Job]) -> None:
    old = job_in(Status.RUNNING, attempt=1)
    Job.objects.filter(pk=old.pk).update(attempt=2)
    with pytest.raises(StaleJob):
        job_move(old, Status.DONE, code="DONE", message="Done.")
    assert Job.objects.get(pk=old.pk).status == Status.RUNNING


def test_job_move_keeps_the_status_when_the_event_cannot_be_written(
    job_in: Callable[..., Job],
) -> None:
    job = job_in(Status.RUNNING)
    with pytest.raises(IntegrityError, match="event_level_known"):
        job_move(job, Status.DONE, code="DONE", message="Done.", level="shout")
    assert Job.objects.get(pk=job.pk).status == Status.RUNNING


def test_job_move_removes_lease_and_worker_from_a_job_that_is_queued_again(
    job_in: Callable[..., Job],
) -> None:
    job = job_move(job_in(Status.RUNNING), Status.QUEUED, code="WORKER_LOST", message="Lost.")
    assert (job.lease_until, job.worker, job.phase) == (None, "", "")
    assert job.queued_at is not None


@pytest.mark.parametrize("end", sorted(FINAL))
def test_job_move_stamps_the_end_of_a_job_and_drops_its_lease(
    end: Status, job_in: Callable[..., Job]
) -> None:
    job = job_move(job_in(Status.RUNNING), end, code="END", message="The end.")
    assert job.finished_at is not None
    assert job.lease_until is None
