"""Launching: refused requests and their reasons, and the effect of an idempotency key."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import django_rq
import pytest
from django.contrib.auth.models import User
from rq.serializers import JSONSerializer

from jobs.errors import IdempotencyKeyReused, InvalidJob, JobIsGone, JobNotEnded
from jobs.models import Job
from jobs.services import job_cancel, job_create, job_relaunch
from jobs.states import Status
from portals.models import Portal
from tests.factories import PortalFactory
from tests.rig.jobs_threads import in_threads


def test_a_launch_records_a_queued_job_with_its_first_event(
    oscar: User, order: dict[str, Any]
) -> None:
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
def test_a_launch_with_a_bad_value_is_refused_and_the_error_names_the_field(
    change: dict[str, Any], field: str, code: str, oscar: User, order: dict[str, Any]
) -> None:
    with pytest.raises(InvalidJob) as refused:
        job_create(by=oscar, **{**order, **change})
    assert refused.value.problems[field].code == code
    assert list(refused.value.extra["fields"]) == [field]
    assert not Job.objects.exists()


def test_a_launch_from_a_disabled_portal_is_refused(
    oscar: User, order: dict[str, Any], lab: Portal
) -> None:
    Portal.objects.filter(pk=lab.pk).update(state="disabled")
    lab.refresh_from_db()
    with pytest.raises(InvalidJob, match="lab is disabled") as refused:
        job_create(by=oscar, **order)
    assert refused.value.code == "PORTAL_DISABLED"


@pytest.mark.parametrize(
    ("source", "target"),
    [("a", "a"), ("a", "./a/"), ("a", "a/b"), ("a/b", "a"), ("", "a"), ("a", ""), ("a//b", "a/b")],
)
def test_a_launch_with_overlapping_source_and_target_is_refused(
    source: str, target: str, oscar: User, lab: Portal
) -> None:
    with pytest.raises(InvalidJob) as refused:
        job_create(
            by=oscar,
            source_portal=lab,
            source_path=source,
            target_portal=lab,
            target_path=target,
        )
    assert refused.value.code == "TARGET_OVERLAPS_SOURCE"


def test_a_launch_is_refused_if_two_portals_of_one_machine_overlap(
    oscar: User, lab: Portal
) -> None:
    inner = PortalFactory.create(name="inner", root_path=f"{lab.root_path}/day1/sub")
    with pytest.raises(InvalidJob) as refused:
        job_create(by=oscar, source_portal=lab, source_path="day1", target_portal=inner)
    assert refused.value.code == "TARGET_OVERLAPS_SOURCE"


def test_a_launch_to_a_neighbour_or_an_equal_path_on_another_host_is_allowed(
    oscar: User, lab: Portal
) -> None:
    far = PortalFactory.create(name="far", kind="ssh", host="srv", root_path=lab.root_path)
    job_create(by=oscar, source_portal=lab, source_path="a", target_portal=lab, target_path="ab")
    job_create(by=oscar, source_portal=lab, source_path="a", target_portal=far, target_path="a")
    assert Job.objects.count() == 2


def test_a_launch_normalises_paths_but_keeps_the_slash_that_marks_a_folder(
    oscar: User, order: dict[str, Any]
) -> None:
    job = job_create(by=oscar, **{**order, "source_path": "./a//b", "target_path": "x/./y/"})
    assert (job.source_path, job.target_path) == ("a/b", "x/y/")


def test_a_launch_with_a_repeated_idempotency_key_returns_the_same_job(
    oscar: User, order: dict[str, Any]
) -> None:
    first = job_create(by=oscar, idempotency_key="k1", **order)
    assert job_create(by=oscar, idempotency_key="k1", **order) == first
    assert first.events.count() == 1


def test_a_launch_with_the_idempotency_key_of_another_transfer_is_refused(
    oscar: User, order: dict[str, Any]
) -> None:
    job_create(by=oscar, idempotency_key="k1", **order)
    with pytest.raises(IdempotencyKeyReused):
        job_create(by=oscar, idempotency_key="k1", **{**order, "mode": "move"})
    assert Job.objects.count() == 1


def test_the_same_idempotency_key_of_two_users_makes_two_jobs(
    oscar: User, alice: User, order: dict[str, Any]
) -> None:
    mine = job_create(by=oscar, idempotency_key="k1", **order)
    assert job_create(by=alice, idempotency_key="k1", **order) != mine


@pytest.mark.django_db(transaction=True)
def test_four_simultaneous_launches_with_one_idempotency_key_make_one_job(
    oscar: User, order: dict[str, Any], clean_redis: object
) -> None:
    made = in_threads(4, lambda: job_create(by=oscar, idempotency_key="k1", **order).pk)
    assert len(made) == 4
    assert len(set(made)) == 1 == Job.objects.count()


@pytest.mark.django_db(transaction=True)
def test_a_committed_launch_sends_a_wake_up_with_only_the_id_of_the_job(
    oscar: User, order: dict[str, Any], clean_redis: object
) -> None:
    job = job_create(by=oscar, **order)
    (wake_up,) = django_rq.get_queue().jobs
    assert (wake_up.func_name, wake_up.args, wake_up.kwargs) == (
        "jobs.tasks.run_job",
        [str(job.pk)],
        {},
    )
    assert wake_up.id.startswith(job.pk.hex)
    assert wake_up.timeout == -1
    assert b"__reduce__" not in wake_up.data
    assert wake_up.serializer is JSONSerializer


@pytest.mark.django_db(transaction=True)
def test_a_launch_records_the_job_even_when_redis_takes_no_wake_up(
    oscar: User, order: dict[str, Any], settings: Any, tmp_path: Path
) -> None:
    gone = {**settings.RQ_QUEUES["default"], "URL": f"unix://{tmp_path}/no-redis.sock"}
    with patch.dict(django_rq.settings.QUEUES, {"default": gone}):
        job = job_create(by=oscar, **order)
    assert Job.objects.get(pk=job.pk).status == Status.QUEUED


def test_a_relaunch_of_an_ended_job_makes_a_new_job_with_the_same_options_and_limits(
    oscar: User, order: dict[str, Any]
) -> None:
    asked = {
        "mode": "move",
        "exclude": ["*.tmp"],
        "streams": 3,
        "priority": 5,
        "bandwidth_limit": 1000,
        "max_tries": 3,
    }
    old = job_create(by=oscar, **order, **asked)
    job_cancel(old, by=oscar)
    new = job_relaunch(old, by=oscar)
    assert new.pk != old.pk
    assert new.relaunched_from == old
    assert new.status == Status.QUEUED
    assert {name: getattr(new, name) for name in asked} == asked
    assert Job.objects.get(pk=old.pk).status == Status.CANCELLED


def test_a_relaunch_of_a_pruned_job_is_refused(oscar: User, order: dict[str, Any]) -> None:
    old = job_cancel(job_create(by=oscar, **order), by=oscar)
    Job.objects.filter(pk=old.pk).delete()
    with pytest.raises(JobIsGone):
        job_relaunch(old, by=oscar)


def test_a_relaunch_of_a_live_job_is_refused(oscar: User, order: dict[str, Any]) -> None:
    with pytest.raises(JobNotEnded):
        job_relaunch(job_create(by=oscar, **order), by=oscar)
