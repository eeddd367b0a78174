"""Launching: what is refused, why, and what an idempotency key does."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from unittest.mock import patch

import django_rq
import pytest
from django.contrib.auth.models import User
from django.db import connection
from rq.serializers import JSONSerializer

from jobs.errors import IdempotencyKeyReused, InvalidJob, JobIsGone, JobNotEnded
from jobs.models import Job
from jobs.services import job_cancel, job_create, job_relaunch
from jobs.states import Status
from portals.models import Portal
from tests.factories import PortalFactory


def test_it_records_a_job_with_its_first_event(oscar: User, order: dict[str, Any]) -> None:
    job = job_create(by=oscar, **order)
    assert (job.status, job.attempt, job.requested_by) == (Status.QUEUED, 0, oscar)
    assert job.queued_at is not None
    assert [(e.seq, e.code) for e in job.events.all()] == [(1, "CREATED")]


BAD_FIELDS = [
    ({"source_path": "/etc"}, "source_path", "PATH_OUTSIDE_ROOT"),
    ({"source_path": "a/../../b"}, "source_path", "PATH_OUTSIDE_ROOT"),
    ({"target_path": ".."}, "target_path", "PATH_OUTSIDE_ROOT"),
    ({"target_path": "a\0b"}, "target_path", "BAD_PATH"),
    ({"target_path": "a\ud800"}, "target_path", "BAD_PATH"),
    ({"source_path": "x" * 4097}, "source_path", "BAD_PATH"),
    ({"mode": "teleport"}, "mode", "INVALID"),
    ({"strategy": "magic"}, "strategy", "INVALID"),
    ({"verify": "maybe"}, "verify", "INVALID"),
    ({"on_conflict": "shrug"}, "on_conflict", "INVALID"),
    ({"streams": -1}, "streams", "INVALID"),
    ({"streams": 33}, "streams", "INVALID"),
    ({"include": [""]}, "include", "INVALID"),
    ({"exclude": ["*.mov\0"]}, "exclude", "INVALID"),
    ({"exclude": ["x"] * 201}, "exclude", "INVALID"),
    ({"idempotency_key": "k" * 129}, "idempotency_key", "INVALID"),
    ({"idempotency_key": "a\0b"}, "idempotency_key", "INVALID"),
]


@pytest.mark.parametrize(("change", "field", "code"), BAD_FIELDS)
def test_it_refuses_what_cannot_be_done_and_names_the_field(
    change: dict[str, Any], field: str, code: str, oscar: User, order: dict[str, Any]
) -> None:
    with pytest.raises(InvalidJob) as refused:
        job_create(by=oscar, **{**order, **change})
    assert refused.value.problems[field].code == code
    assert list(refused.value.extra["fields"]) == [field]
    assert not Job.objects.exists()


def test_it_refuses_a_disabled_portal(oscar: User, order: dict[str, Any], lab: Portal) -> None:
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    lab.refresh_from_db()
    with pytest.raises(InvalidJob, match="lab is disabled") as refused:
        job_create(by=oscar, **order)
    assert refused.value.code == "PORTAL_DISABLED"


@pytest.mark.parametrize(
    ("source", "target"),
    [("a", "a"), ("a", "./a/"), ("a", "a/b"), ("a/b", "a"), ("", "a"), ("a", ""), ("a//b", "a/b")],
)
def test_it_refuses_places_that_overlap(source: str, target: str, oscar: User, lab: Portal) -> None:
    with pytest.raises(InvalidJob) as refused:
        job_create(
            by=oscar,
            source_portal=lab,
            source_path=source,
            target_portal=lab,
            target_path=target,
        )
    assert refused.value.code == "TARGET_OVERLAPS_SOURCE"


def test_it_sees_an_overlap_through_two_portals_of_one_machine(oscar: User, lab: Portal) -> None:
    inner = PortalFactory.create(name="inner", root_path=f"{lab.root_path}/day1/sub")
    with pytest.raises(InvalidJob) as refused:
        job_create(by=oscar, source_portal=lab, source_path="day1", target_portal=inner)
    assert refused.value.code == "TARGET_OVERLAPS_SOURCE"


def test_it_allows_neighbours_and_equal_paths_on_other_hosts(oscar: User, lab: Portal) -> None:
    far = PortalFactory.create(name="far", kind="ssh", host="srv", root_path=lab.root_path)
    job_create(by=oscar, source_portal=lab, source_path="a", target_portal=lab, target_path="ab")
    job_create(by=oscar, source_portal=lab, source_path="a", target_portal=far, target_path="a")
    assert Job.objects.count() == 2


def test_it_shortens_paths_but_keeps_the_slash_that_says_folder(
    oscar: User, order: dict[str, Any]
) -> None:
    job = job_create(by=oscar, **{**order, "source_path": "./a//b", "target_path": "x/./y/"})
    assert (job.source_path, job.target_path) == ("a/b", "x/y/")


def test_it_answers_a_repeated_key_with_the_same_job(oscar: User, order: dict[str, Any]) -> None:
    first = job_create(by=oscar, idempotency_key="k1", **order)
    assert job_create(by=oscar, idempotency_key="k1", **order) == first
    assert first.events.count() == 1


def test_it_refuses_a_key_that_was_used_for_another_transfer(
    oscar: User, order: dict[str, Any]
) -> None:
    job_create(by=oscar, idempotency_key="k1", **order)
    with pytest.raises(IdempotencyKeyReused):
        job_create(by=oscar, idempotency_key="k1", **{**order, "mode": "move"})
    assert Job.objects.count() == 1


def test_it_keeps_the_keys_of_two_users_apart(
    oscar: User, alice: User, order: dict[str, Any]
) -> None:
    mine = job_create(by=oscar, idempotency_key="k1", **order)
    assert job_create(by=alice, idempotency_key="k1", **order) != mine


@pytest.mark.django_db(transaction=True)
def test_it_makes_one_job_of_one_key_sent_by_many_at_once(
    oscar: User, order: dict[str, Any], clean_redis: object
) -> None:
    together, made = Barrier(4), []

    def launch() -> None:
        together.wait()
        made.append(job_create(by=oscar, idempotency_key="k1", **order).pk)
        connection.close()

    threads = [Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4
    assert len(set(made)) == 1 == Job.objects.count()


@pytest.mark.django_db(transaction=True)
def test_it_rings_once_the_row_is_committed_and_sends_the_id_alone(
    oscar: User, order: dict[str, Any], clean_redis: object
) -> None:
    job = job_create(by=oscar, **order)
    (ring,) = django_rq.get_queue().jobs
    assert (ring.func_name, ring.args, ring.kwargs) == ("jobs.tasks.run_job", [str(job.pk)], {})
    assert ring.id.startswith(job.pk.hex)
    assert ring.timeout == -1
    assert b"__reduce__" not in ring.data
    assert ring.serializer is JSONSerializer


@pytest.mark.django_db(transaction=True)
def test_it_records_the_job_even_when_nobody_can_be_rung_for(
    oscar: User, order: dict[str, Any], settings: Any, tmp_path: Path
) -> None:
    gone = {**settings.RQ_QUEUES["default"], "URL": f"unix://{tmp_path}/no-redis.sock"}
    with patch.dict(django_rq.settings.QUEUES, {"default": gone}):
        job = job_create(by=oscar, **order)
    assert Job.objects.get(pk=job.pk).status == Status.QUEUED


def test_it_relaunches_an_ended_job_as_a_new_one(oscar: User, order: dict[str, Any]) -> None:
    old = job_create(by=oscar, **{**order, "mode": "move", "exclude": ["*.tmp"], "streams": 3})
    job_cancel(old, by=oscar)
    new = job_relaunch(old, by=oscar)
    assert new.pk != old.pk
    assert new.relaunched_from == old
    assert (new.status, new.mode, new.exclude, new.streams) == ("queued", "move", ["*.tmp"], 3)
    assert Job.objects.get(pk=old.pk).status == Status.CANCELLED


def test_it_does_not_relaunch_a_job_that_was_pruned_meanwhile(
    oscar: User, order: dict[str, Any]
) -> None:
    old = job_cancel(job_create(by=oscar, **order), by=oscar)
    Job.objects.filter(pk=old.pk).delete()
    with pytest.raises(JobIsGone):
        job_relaunch(old, by=oscar)


def test_it_does_not_relaunch_a_live_job(oscar: User, order: dict[str, Any]) -> None:
    with pytest.raises(JobNotEnded):
        job_relaunch(job_create(by=oscar, **order), by=oscar)
