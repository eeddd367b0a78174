"""Many workers, many jobs: none lost, none run twice, in their order, and never more than allowed.

The workers are real processes.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from jobs.models import Job, JobEvent
from jobs.services import job_create
from jobs.states import FINAL, Status
from portals.models import Portal
from tests.factories import PortalFactory
from tests.rig.lanes import nightly

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

StartWorker = Callable[..., subprocess.Popen[bytes]]
WORKERS = 4
#: Seconds that a job may take on the average, all workers together.
SECONDS_EACH = 0.4


@pytest.fixture
def places(db: None, tmp_path: Path) -> Callable[..., Portal]:
    """Make portals on this machine, each with a folder of its own."""

    def make(name: str, **fields: object) -> Portal:
        (tmp_path / name).mkdir()
        return PortalFactory.create(name=name, root_path=str(tmp_path / name), **fields)

    return make


def launch(by: User, source: Portal, target: Portal, count: int, dice: random.Random) -> list[Job]:
    """Launch jobs with tiny trees, each to a place of its own, with mixed priorities."""
    jobs = []
    for number in range(count):
        name = f"{source.name}-{number:04}"
        folder = Path(source.root_path) / name
        (folder / "below").mkdir(parents=True)
        (folder / "a.txt").write_text(name)
        (folder / "below" / "b.bin").write_bytes(dice.randbytes(dice.randrange(2000)))
        jobs.append(
            job_create(
                by=by,
                source_portal=source,
                source_path=name,
                target_portal=target,
                target_path=name,
                priority=dice.randrange(-1, 2),
            )
        )
    return jobs


def wait_for_all(jobs: list[Job], seconds: float) -> None:
    """Wait until all of them have ended, then read them afresh."""
    keys = [job.pk for job in jobs]
    deadline = time.monotonic() + seconds
    while (ended := Job.objects.filter(pk__in=keys, status__in=FINAL).count()) < len(jobs):
        assert time.monotonic() < deadline, f"only {ended} of {len(jobs)} jobs ended in time"
        time.sleep(0.2)
    for job in jobs:
        job.refresh_from_db()


def starts(jobs: list[Job]) -> dict[object, list[datetime]]:
    """When each of the jobs began, from its trail."""
    found: dict[object, list[datetime]] = {job.pk: [] for job in jobs}
    for key, at in JobEvent.objects.filter(code="STARTED").values_list("job_id", "at"):
        if key in found:
            found[key].append(at)
    return found


def displacements(jobs: list[Job]) -> list[int]:
    """How far from its turn each job began: 0 where the order was kept."""
    begun = starts(jobs)
    in_turn = sorted(jobs, key=lambda job: (-job.priority, job.created_at))
    in_fact = sorted(jobs, key=lambda job: begun[job.pk][0])
    place = {job.pk: at for at, job in enumerate(in_fact)}
    return [place[job.pk] - at for at, job in enumerate(in_turn)]


def arrived(jobs: list[Job]) -> bool:
    """Whether every target holds what its source holds."""
    for job in jobs:
        here = Path(job.source_portal.root_path) / job.source_path
        there = Path(job.target_portal.root_path) / job.target_path
        names = {path.relative_to(here) for path in here.rglob("*")}
        if names != {path.relative_to(there) for path in there.rglob("*")}:
            return False
        files = [name for name in names if (here / name).is_file()]
        if any((here / name).read_bytes() != (there / name).read_bytes() for name in files):
            return False
    return True


@pytest.mark.parametrize("count", [80, nightly(500)])
def test_four_workers_run_hundreds_of_jobs_once_each_and_in_order(
    count: int, worker: StartWorker, oscar: User, places: Callable[..., Portal]
) -> None:
    dice = random.Random(1)
    jobs = launch(oscar, places("lab"), places("srvtrf"), count, dice)
    began = time.monotonic()
    for _ in range(WORKERS):
        worker()
    wait_for_all(jobs, count * SECONDS_EACH + 30)
    seconds = time.monotonic() - began
    print(f"{count} jobs in {seconds:.1f} s, {1000 * seconds / count:.0f} ms each")
    assert Counter(job.status for job in jobs) == {Status.DONE: count}
    assert {len(times) for times in starts(jobs).values()} == {1}
    assert {job.attempt for job in jobs} == {1}
    assert len({job.worker for job in jobs}) == WORKERS
    assert max(map(abs, displacements(jobs))) < WORKERS
    assert arrived(jobs)


def test_a_single_worker_runs_jobs_exactly_by_priority_and_age(
    worker: StartWorker, oscar: User, places: Callable[..., Portal]
) -> None:
    jobs = launch(oscar, places("lab"), places("srvtrf"), 25, random.Random(2))
    worker()
    wait_for_all(jobs, 60)
    assert set(displacements(jobs)) == {0}


def test_a_portal_never_has_more_running_jobs_than_its_limit(
    worker: StartWorker, oscar: User, places: Callable[..., Portal]
) -> None:
    dice, srvtrf = random.Random(3), places("srvtrf")
    jobs = launch(oscar, places("narrow", max_jobs=1), srvtrf, 25, dice)
    others = launch(oscar, places("wide"), srvtrf, 25, dice)
    for _ in range(WORKERS):
        worker(KETTER_REAPER_SECONDS=1)
    wait_for_all([*jobs, *others], 90)
    assert most_at_once(jobs) == 1
    assert most_at_once(others) > 1


def most_at_once(jobs: list[Job]) -> int:
    """The most of these jobs that ran at one time, from their trails."""
    steps = [(at, 1) for times in starts(jobs).values() for at in times]
    ends = JobEvent.objects.filter(job__in=jobs, code="DONE").values_list("at", flat=True)
    steps += [(at, -1) for at in ends]
    running, most = 0, 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    return most
