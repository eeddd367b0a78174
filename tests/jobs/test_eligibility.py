"""Which job may start next: targets that are held, places at a portal, priority and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from jobs.errors import InvalidJob
from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.attempts import job_claim, job_lost, job_wait
from jobs.queueing.eligibility import queued_in_order
from jobs.queueing.transitions import job_move
from jobs.services import job_cancel, job_create, job_pause, job_resume
from jobs.states import FINAL, LIVE, Status
from portals.models import Portal
from portals.services import portal_update
from tests.factories import PortalFactory
from tests.rig.jobs_threads import in_threads

JobIn = Callable[..., Job]


@pytest.fixture
def place(db: None) -> Callable[..., dict[str, Any]]:
    """Make the columns of a job that writes to a place on a host, through a portal of its own."""

    def make(host: str, root: str, path: str) -> dict[str, Any]:
        kind = "ssh" if host else "local"
        portal = PortalFactory.create(kind=kind, host=host, root_path=root)
        return {"target_portal": portal, "target_path": path}

    return make


SAME_PLACE = [
    (("", "/a", "x"), ("", "/a", "x")),
    (("", "/a", "x"), ("", "/a", "x/")),
    (("", "/a", "x"), ("", "/a", "x/deeper/still")),
    (("", "/a", "x/deeper"), ("", "/a", "x")),
    (("", "/a", "b/x"), ("", "/a/b", "x")),
    (("", "/", "a/x"), ("", "/a", "")),
    (("srv", "/a", "x"), ("SRV", "/a", "x")),
    (("", "/a", ""), ("", "/a/b/c", "")),
]
OTHER_PLACE = [
    (("", "/a", "x"), ("", "/a", "xy")),
    (("", "/a", "x/b"), ("", "/a", "x/c")),
    (("", "/a", "x"), ("srv", "/a", "x")),
    (("srv", "/a", "x"), ("srv2", "/a", "x")),
    (("", "/a", "x"), ("", "/A", "x")),
]


@pytest.mark.parametrize(("one", "other"), SAME_PLACE)
def test_a_job_waits_for_a_running_job_that_writes_to_the_same_place(
    one: Any, other: Any, place: Callable[..., Any], job_in: JobIn
) -> None:
    holder = job_in(Status.RUNNING, **place(*one))
    second = job_in(Status.QUEUED, **place(*other))
    assert job_claim(worker="w2") is None
    second.refresh_from_db()
    assert second.waits_for == f"Waits for job {holder}, which writes to the same place."
    job_move(holder, Status.DONE, code="DONE", message="Copied.")
    claimed = job_claim(worker="w2")
    assert claimed == second
    assert claimed.waits_for == ""


@pytest.mark.parametrize(("one", "other"), OTHER_PLACE)
def test_a_job_to_another_place_does_not_wait(
    one: Any, other: Any, place: Callable[..., Any], job_in: JobIn
) -> None:
    job_in(Status.RUNNING, **place(*one))
    second = job_in(Status.QUEUED, **place(*other))
    assert job_claim(worker="w2") == second


@pytest.mark.parametrize("status", sorted(LIVE - {Status.DRAFT, Status.SCHEDULED}))
def test_a_job_that_has_begun_blocks_its_target_until_it_ends(
    status: Status, place: Callable[..., Any], job_in: JobIn
) -> None:
    where = place("", "/a", "x")
    job_in(status, attempt=1, created_at=timezone.now() + timedelta(hours=1), **where)
    second = job_in(Status.QUEUED, **where)
    claimed = job_claim(worker="w2")
    assert claimed != second  # One that is queued again goes first, though it is younger.
    assert (claimed is not None) == (status is Status.QUEUED)


@pytest.mark.parametrize("status", sorted(FINAL | {Status.DRAFT, Status.SCHEDULED}))
def test_a_job_that_has_not_begun_or_has_ended_blocks_no_target(
    status: Status, place: Callable[..., Any], job_in: JobIn
) -> None:
    where = place("", "/a", "x")
    job_in(status, attempt=int(status in FINAL), **where)
    second = job_in(Status.QUEUED, **where)
    assert job_claim(worker="w2") == second


def test_a_running_job_blocks_its_original_target_after_its_portal_was_moved(
    place: Callable[..., Any], job_in: JobIn
) -> None:
    there, elsewhere = place("", "/a", "x"), place("", "/b", "x")
    job_in(Status.QUEUED, **there)
    running = job_claim(worker="w1")
    portal_update(there["target_portal"], root_path="/b")
    job_in(Status.QUEUED, target_portal=PortalFactory.create(root_path="/a"), target_path="x")
    assert job_claim(worker="w2") is None
    there_now = job_in(Status.QUEUED, **elsewhere)
    assert job_claim(worker="w2") == there_now
    assert running.frozen["target"]["root_path"] == "/a"


def test_a_cancelled_job_starts_first_and_blocks_its_target_until_it_has_ended(
    place: Callable[..., Any], job_in: JobIn, oscar: User
) -> None:
    where = place("", "/a", "x")
    holder = job_in(Status.PAUSED, attempt=1, **where)
    urgent = job_in(Status.QUEUED, priority=9)
    second = job_in(Status.QUEUED, **where)
    job_cancel(holder, by=oscar)
    assert job_claim(worker="w2") == holder
    assert job_claim(worker="w3") == urgent
    assert job_claim(worker="w4") is None
    holder.refresh_from_db()
    job_move(holder, Status.CANCELLED, code="CANCELLED", message="Cleared away.")
    assert job_claim(worker="w5") == second


# --- Places at a portal -------------------------------------------------------


@pytest.mark.parametrize("side", ["source_portal", "target_portal"])
def test_a_portal_runs_no_more_jobs_at_once_than_its_max_jobs(side: str, job_in: JobIn) -> None:
    portal = PortalFactory.create(name="lab", max_jobs=2)
    jobs = [job_in(Status.QUEUED, **{side: portal}, target_path=f"to{n}") for n in range(3)]
    first, second = job_claim(worker="w1"), job_claim(worker="w2")
    assert [first, second] == jobs[:2]
    assert job_claim(worker="w3") is None
    jobs[2].refresh_from_db()
    assert jobs[2].waits_for == "Waits for a free place at portal lab: it allows 2 at once."
    job_wait(first, code="CONNECTION_LOST", message="The line broke.", advanced=False)
    assert job_claim(worker="w3") == jobs[2]  # What waits to be tried again takes no place.


def test_a_job_within_one_portal_counts_once_against_its_max_jobs(job_in: JobIn) -> None:
    portal = PortalFactory.create(max_jobs=1)
    job = job_in(Status.QUEUED, source_portal=portal, target_portal=portal)
    assert job_claim(worker="w1") == job


def test_a_waiting_job_can_start_once_the_max_jobs_of_its_portal_is_lifted(job_in: JobIn) -> None:
    portal = PortalFactory.create(max_jobs=1)
    job_in(Status.RUNNING, source_portal=portal)
    job = job_in(Status.QUEUED, source_portal=portal, target_path="elsewhere")
    assert job_claim(worker="w2") is None
    portal_update(portal, max_jobs=0)
    assert job_claim(worker="w2") == job


# --- Order --------------------------------------------------------------------


def test_waiting_jobs_begin_by_priority_then_by_age(job_in: JobIn) -> None:
    now = timezone.now()
    order = [(5, 3), (5, 1), (0, 9), (0, 2), (-1, 99)]
    jobs = {
        key: job_in(Status.QUEUED, priority=key[0], created_at=now - timedelta(hours=key[1]))
        for key in reversed(order)
    }
    for job in jobs.values():
        Portal.objects.filter(pk=job.target_portal_id).update(root_path=f"/{job.pk}")
    claimed = [job_claim(worker="w") for _ in order]
    assert claimed == [jobs[key] for key in order]


def test_a_job_that_has_to_wait_does_not_delay_jobs_of_lower_priority(
    place: Callable[..., Any], job_in: JobIn
) -> None:
    where = place("", "/a", "x")
    job_in(Status.RUNNING, **where)
    job_in(Status.QUEUED, priority=9, **where)
    free = job_in(Status.QUEUED, priority=-9, **place("", "/b", "x"))
    assert job_claim(worker="w2") == free


# --- Obstacles and wake-ups -----------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_reaper_records_and_clears_what_a_queued_job_waits_for(
    place: Callable[..., Any], job_in: JobIn, oscar: User, clean_redis: object
) -> None:
    where = place("", "/a", "x")
    holder = job_in(Status.RUNNING, **where)
    second = job_in(Status.QUEUED, **where)
    reaper.tick()
    second.refresh_from_db()
    assert str(holder) in second.waits_for
    job_move(holder, Status.DONE, code="DONE", message="Copied.")
    reaper.tick()
    second.refresh_from_db()
    assert second.waits_for == ""


def test_a_pause_of_a_waiting_job_clears_what_it_waits_for(
    place: Callable[..., Any], job_in: JobIn, oscar: User
) -> None:
    where = place("", "/a", "x")
    job_in(Status.RUNNING, **where)
    second = job_in(Status.QUEUED, **where)
    job_claim(worker="w2")
    assert job_pause(second, by=oscar).waits_for == ""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("status", [Status.DONE, Status.FAILED, Status.PAUSED, Status.RETRY_WAIT])
def test_the_next_eligible_job_gets_a_wake_up_when_a_job_stops(
    status: Status, job_in: JobIn, clean_redis: object
) -> None:
    portal = PortalFactory.create(max_jobs=1)
    running = job_in(Status.RUNNING, source_portal=portal)
    waiting = job_in(Status.QUEUED, source_portal=portal, target_path="elsewhere")
    job_move(running, status, code="END", message="It stops.", next_run_at=Now())
    assert [job.args for job in django_rq.get_queue().jobs] == [[str(waiting.pk)]]


@pytest.mark.django_db(transaction=True)
def test_the_reaper_wakes_an_eligible_job_behind_more_than_a_batch_of_blocked_jobs(
    place: Callable[..., Any], job_in: JobIn, clean_redis: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "BATCH", 2)
    where, long_ago = place("", "/a", "x"), timezone.now() - timedelta(hours=1)
    job_in(Status.RUNNING, **where)
    for _ in range(3):
        job_in(Status.QUEUED, queued_at=long_ago, **where)
    free = job_in(Status.QUEUED, queued_at=timezone.now() - timedelta(seconds=60), target_path="y")
    assert reaper.tick().notified == [free.pk]


# --- Many at once ---------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_only_one_of_eight_workers_gets_the_last_free_place_at_a_portal(job_in: JobIn) -> None:
    portal = PortalFactory.create(max_jobs=1)
    for number in range(8):
        job_in(Status.QUEUED, source_portal=portal, target_path=f"to{number}")
    claims = in_threads(8, lambda: job_claim(worker="w"))
    assert len([claim for claim in claims if claim]) == 1
    assert Job.objects.filter(status=Status.RUNNING).count() == 1


@pytest.mark.django_db(transaction=True)
def test_only_one_of_eight_workers_claims_a_job_to_overlapping_targets(
    place: Callable[..., Any], job_in: JobIn
) -> None:
    for number in range(8):
        job_in(Status.QUEUED, **place("", "/a", "x/" * (1 + number % 4)))
    claims = in_threads(8, lambda: job_claim(worker="w"))
    assert len([claim for claim in claims if claim]) == 1


@pytest.mark.django_db(transaction=True)
def test_eight_workers_that_claim_at_once_get_one_job_each(job_in: JobIn) -> None:
    jobs = [job_in(Status.QUEUED, target_path=f"to{number}") for number in range(8)]
    claims = in_threads(8, lambda: job_claim(worker="w").pk)
    assert Counter(claims) == Counter(job.pk for job in jobs)


# --- Refusing -------------------------------------------------------------------


@pytest.mark.parametrize("status", list(Status))
def test_a_launch_to_a_busy_target_is_refused_if_the_setting_is_refuse(
    status: Status, job_in: JobIn, oscar: User, order: dict[str, Any], settings: Any
) -> None:
    target = {"target_portal": order["target_portal"], "target_path": "in"}
    other = job_in(status, **target)
    assert job_create(by=oscar, **order, draft=True).status == Status.DRAFT
    settings.KETTER_BUSY_TARGET = "refuse"
    if status in LIVE - {Status.DRAFT}:
        with pytest.raises(InvalidJob, match=str(other)) as refused:
            job_create(by=oscar, **order)
        assert refused.value.code == "TARGET_BUSY"
        assert list(refused.value.problems) == ["target_path"]
    else:
        assert job_create(by=oscar, **order).status == Status.QUEUED


def test_a_lost_job_starts_before_a_more_urgent_job_to_the_same_target(
    place: Callable[..., Any], job_in: JobIn, oscar: User
) -> None:
    where = place("", "/a", "x")
    lost = job_lost(job_in(Status.RUNNING, **where), reason="killed")
    job_in(Status.QUEUED, priority=9, **where)
    assert job_claim(worker="w2") == lost
    paused = job_in(Status.PAUSED, attempt=1, **place("", "/b", "x"))
    assert job_claim(worker="w3") is None
    assert job_claim(worker="w3") is None
    job_resume(paused, by=oscar)
    assert job_claim(worker="w3") == paused


def test_the_query_for_queued_jobs_uses_an_index_and_does_not_sort(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_sort = off")
        plan = queued_in_order().explain()
    assert "using job_turn" in plan
    assert "Sort" not in plan
