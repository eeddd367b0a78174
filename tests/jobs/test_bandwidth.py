"""How fast a job may be: its own limit, and its share of each portal's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from jobs.models import Job
from jobs.queueing.attempts import bandwidth_share
from jobs.queueing.transitions import job_move
from jobs.running.observer import JobObserver
from jobs.running.request import request_for
from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from tests.factories import PortalFactory
from tests.jobs.helpers import MEGABYTE, SHORT, tree, wait_for_status

JobIn = Callable[..., Job]


@pytest.mark.parametrize(
    ("own", "source", "target", "share"),
    [
        (0, 0, 0, 0),
        (700, 0, 0, 700),
        (0, 500, 0, 500),
        (0, 0, 300, 300),
        (700, 500, 300, 300),
        (200, 500, 300, 200),
    ],
)
def test_the_lowest_limit_of_job_source_and_target_applies(
    own: int, source: int, target: int, share: int, job_in: JobIn
) -> None:
    job = job_in(
        Status.RUNNING,
        bandwidth_limit=own,
        source_portal=PortalFactory.create(bandwidth_limit=source),
        target_portal=PortalFactory.create(bandwidth_limit=target),
    )
    assert bandwidth_share(job) == share
    assert request_for_rate(job) == share


def request_for_rate(job: Job) -> int:
    """What the engine is asked to keep to."""
    return request_for(job).bwlimit


def test_a_portals_limit_is_shared_by_the_jobs_that_run_there(job_in: JobIn) -> None:
    portal = PortalFactory.create(bandwidth_limit=900)
    one = job_in(Status.RUNNING, source_portal=portal)
    two = job_in(Status.RUNNING, target_portal=portal)
    both = job_in(Status.RUNNING, source_portal=portal, target_portal=portal)
    for status in set(Status) - {Status.RUNNING}:
        job_in(status, source_portal=portal)
    assert [bandwidth_share(job) for job in (one, two, both)] == [300, 300, 300]
    job_move(two, Status.PAUSED, code="PAUSED", message="Paused.")
    assert bandwidth_share(one) == 450


def test_a_bandwidth_share_is_never_zero_which_would_mean_no_limit(job_in: JobIn) -> None:
    portal = PortalFactory.create(bandwidth_limit=1)
    jobs = [job_in(Status.RUNNING, source_portal=portal) for _ in range(3)]
    assert [bandwidth_share(job) for job in jobs] == [1, 1, 1]


def test_a_running_jobs_bandwidth_share_shrinks_when_another_job_starts(job_in: JobIn) -> None:
    portal = PortalFactory.create(bandwidth_limit=900)
    job = job_in(Status.RUNNING, source_portal=portal)
    observer = JobObserver(job)
    assert observer.bandwidth(0) == 900
    job_in(Status.RUNNING, source_portal=portal)
    assert observer.bandwidth(0) == 900  # As of the last look.
    observer._writer.saved_at = float("-inf")
    observer.checkpoint()
    assert observer.bandwidth(0) == 450


# --- With real workers ----------------------------------------------------------


@pytest.fixture
def two(lab: Portal, oscar: User, srvtrf: Portal) -> Callable[..., list[Job]]:
    """Launch two jobs of 6 MB each."""
    for name in ("one", "two"):
        folder = Path(lab.root_path) / name
        folder.mkdir()
        for number in range(3):
            (folder / f"{number}.mov").write_bytes(os.urandom(2 * MEGABYTE))

    def launch(**asked: Any) -> list[Job]:
        places = {"source_portal": lab, "target_portal": srvtrf}
        return [
            job_create(by=oscar, source_path=name, target_path=name, **places, **asked)
            for name in ("one", "two")
        ]

    return launch


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_jobs_on_two_workers_together_keep_to_a_portals_limit(
    worker: Callable[..., subprocess.Popen[bytes]],
    two: Callable[..., list[Job]],
    lab: Portal,
    srvtrf: Portal,
) -> None:
    Portal.objects.filter(pk=lab.pk).update(bandwidth_limit=2 * MEGABYTE)
    lab.refresh_from_db()
    for _ in range(2):
        worker(**SHORT)
    began = time.monotonic()
    jobs = two()
    for job in jobs:
        wait_for_status(job, Status.DONE)
    took = time.monotonic() - began
    # 12 MB at 2 MB/s. What the first of them does before it knows of the other is allowed for.
    assert took > 4.5
    assert jobs[0].started_at < jobs[1].finished_at
    assert jobs[1].started_at < jobs[0].finished_at
    assert tree(Path(srvtrf.root_path)) == tree(Path(lab.root_path))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("streams", [1, 3])
def test_a_job_keeps_to_its_own_limit_over_all_its_streams(
    streams: int, worker: Callable[..., subprocess.Popen[bytes]], two: Callable[..., list[Job]]
) -> None:
    worker(**SHORT)
    first, second = two(bandwidth_limit=2 * MEGABYTE, streams=streams)
    wait_for_status(first, Status.DONE)
    wait_for_status(second, Status.DONE)
    for job in (first, second):
        assert (job.finished_at - job.started_at).total_seconds() > 2.4  # 6 MB at 2 MB/s.
