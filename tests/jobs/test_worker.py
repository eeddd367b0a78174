"""Real `manage.py rqworker` processes, the real engine, and what happens when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User

from jobs.models import Job
from jobs.queueing import reaper
from jobs.queueing.notify import notify
from jobs.services import job_cancel, job_create
from jobs.states import Status
from portals.models import Portal
from tests.jobs.helpers import (
    MEGABYTE,
    SHORT,
    build_many,
    horse_of,
    is_alive,
    ours,
    tree,
    wait_for,
    wait_for_bytes,
    wait_for_end,
)
from tests.rig.events import codes
from tests.rig.relay import Relay

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def source(lab: Portal) -> Path:
    """A tree with many small files and a larger one, at the source portal."""
    return build_many(Path(lab.root_path) / "day1", 12 * MEGABYTE)


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_worker_copies_or_moves_a_tree_and_the_job_ends_done(
    mode: str, worker: StartWorker, source: Path, oscar: User, order: dict[str, Any], srvtrf: Portal
) -> None:
    sent = tree(source)
    worker(**SHORT)
    job = wait_for_end(job_create(by=oscar, **order, mode=mode))
    assert (job.status, job.files_done) == (Status.DONE, 301), job.error_message
    assert tree(Path(srvtrf.root_path) / "in/day1") == sent
    assert tree(source) == (sent if mode == "copy" else {})
    assert codes(job)[0] == "CREATED"
    assert codes(job)[-1] == "DONE"
    assert ours(Path(srvtrf.root_path)) == []


def test_a_second_worker_finishes_the_job_of_a_killed_worker(
    worker: StartWorker,
    source: Path,
    oscar: User,
    lab: Portal,
    far: Portal,
    line: Relay,
) -> None:
    first = worker(**SHORT)
    job = job_create(
        by=oscar, source_portal=lab, source_path="day1", target_portal=far, target_path="in"
    )
    wait_for_bytes(job)
    lost = job.worker
    for pid in (horse_of(first), first.pid):
        os.kill(pid, signal.SIGKILL)
    first.wait()
    line.rate = 0
    worker(**SHORT)
    job = wait_for_end(job)
    assert (job.status, job.attempt) == (Status.DONE, 2), job.error_message
    assert tree(Path(far.root_path) / "in") == tree(source)
    assert [entry.name for entry in Path(far.root_path).iterdir()] == ["in"]
    event = job.events.get(code="WORKER_LOST")
    assert event.data["worker"] == lost
    assert lost in event.message


def test_a_worker_whose_work_horse_was_killed_runs_the_job_again_at_once(
    worker: StartWorker, source: Path, oscar: User, lab: Portal, far: Portal, line: Relay
) -> None:
    only = worker(KETTER_LEASE_SECONDS=300, KETTER_REAPER_SECONDS=1)
    job = job_create(
        by=oscar, source_portal=lab, source_path="day1", target_portal=far, target_path="in"
    )
    wait_for_bytes(job)
    os.kill(horse_of(only), signal.SIGKILL)
    line.rate = 0
    job = wait_for_end(job)
    assert (job.status, job.attempt) == (Status.DONE, 2), job.error_message
    assert tree(Path(far.root_path) / "in") == tree(source)


def test_a_work_horse_whose_worker_was_killed_hands_its_job_back_and_ends(
    worker: StartWorker, source: Path, oscar: User, lab: Portal, far: Portal, line: Relay
) -> None:
    first = worker(KETTER_LEASE_SECONDS=300, KETTER_REAPER_SECONDS=1)
    job = job_create(
        by=oscar, source_portal=lab, source_path="day1", target_portal=far, target_path="in"
    )
    wait_for_bytes(job)
    orphan = horse_of(first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: "WORKER_LOST" in codes(job), 10)
    wait_for(lambda: not is_alive(orphan), 10)
    line.rate = 0
    worker(**SHORT)
    job = wait_for_end(job)
    assert (job.status, job.attempt) == (Status.DONE, 2), job.error_message
    assert tree(Path(far.root_path) / "in") == tree(source)


def test_a_busy_worker_takes_back_lost_jobs_and_stops_its_own_when_cancelled(
    worker: StartWorker,
    source: Path,
    oscar: User,
    lab: Portal,
    far: Portal,
    line: Relay,
    job_in: Callable[..., Job],
) -> None:
    busy = worker(**SHORT)
    job = job_create(
        by=oscar, source_portal=lab, source_path="day1", target_portal=far, target_path="in"
    )
    wait_for_bytes(job)
    horse = horse_of(busy)
    lost = job_in(Status.RUNNING, lease_until="2020-01-01T00:00:00Z")
    wait_for(lambda: Job.objects.get(pk=lost.pk).status == Status.QUEUED, 10)
    job_cancel(lost, by=oscar)
    job_cancel(job, by=oscar)
    job = wait_for_end(job, 15)
    assert job.status == Status.CANCELLED
    assert codes(job)[-2:] == ["CANCEL_REQUESTED", "CANCELLED"]
    line.rate = 0
    wait_for(lambda: not is_alive(horse), 10)
    assert tree(Path(far.root_path)) == {}
    assert len(tree(source)) == 308
    assert busy.poll() is None


def test_two_workers_run_a_job_once_when_its_wake_up_arrives_three_times(
    worker: StartWorker, source: Path, oscar: User, order: dict[str, Any]
) -> None:
    job = job_create(by=oscar, **order)
    notify(job.pk)
    notify(job.pk)
    worker(**SHORT)
    worker(**SHORT)
    job = wait_for_end(job)
    wait_for(lambda: not django_rq.get_queue().job_ids)
    assert job.status == Status.DONE
    assert codes(job).count("STARTED") == 1


def test_an_idle_worker_sends_a_wake_up_for_a_job_that_redis_forgot(
    worker: StartWorker, source: Path, oscar: User, order: dict[str, Any]
) -> None:
    worker(**SHORT)
    wait_for(reaper.last_tick)
    order = {**order, "source_path": "day1"}
    job = Job(requested_by=oscar, queued_at="2020-01-01T00:00:00Z", **order)
    job.save()  # As if Redis had been away, or emptied, when it was launched.
    assert wait_for_end(job, 15).status == Status.DONE


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"source_path": "nowhere"}, "SOURCE_MISSING"),
        ({"source_path": "way-out"}, "PATH_OUTSIDE_ROOT"),
    ],
)
def test_a_job_with_a_bad_source_path_fails_and_its_last_event_says_why(
    change: dict[str, str],
    code: str,
    worker: StartWorker,
    source: Path,
    oscar: User,
    order: dict[str, Any],
    srvtrf: Portal,
) -> None:
    (source.parent / "way-out").symlink_to("/etc")
    worker(**SHORT)
    job = wait_for_end(job_create(by=oscar, **{**order, **change}))
    assert (job.status, job.error_code) == (Status.FAILED, code)
    last = job.events.order_by("seq").last()
    assert last is not None
    assert (last.code, last.message) == (code, job.error_message)
    assert tree(Path(srvtrf.root_path)) == {}
