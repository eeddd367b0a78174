"""A worker that shuts down gives its job back, and the next one goes on with it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from jobs.models import Job
from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from tests.jobs.helpers import MEGABYTE, ours, tree, wait_for_bytes, wait_for_status
from tests.rig.events import codes
from tests.rig.lanes import nightly
from tests.rig.relay import Relay, Way

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

StartWorker = Callable[..., subprocess.Popen[bytes]]
SIZE = 24 * MEGABYTE
#: Long, so that only a job that was handed back goes on in time.
LONG = {"KETTER_LEASE_SECONDS": 300, "KETTER_REAPER_SECONDS": 60}
#: The promised limit, in seconds.
IN_TIME = 10.0


@pytest.fixture
def launched(oscar: User, lab: Portal, far: Portal) -> Callable[..., Job]:
    """Launch a job over a tree of so many files, of so many bytes together, to the far portal."""

    def launch(files: int, size: int = SIZE) -> Job:
        folder = Path(lab.root_path) / "day1"
        folder.mkdir()
        for number in range(files):
            (folder / f"{number}.mov").write_bytes(os.urandom(size // files))
        places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
        return job_create(by=oscar, target_path="in", streams=1, **places)

    return launch


def shut_down(worker: subprocess.Popen[bytes]) -> float:
    """Send SIGTERM to a worker; return the seconds until it ended."""
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    return time.monotonic() - began


@pytest.mark.parametrize(("files", "size"), [(1, 80 * MEGABYTE), nightly(12, SIZE), (2400, SIZE)])
def test_the_next_worker_resumes_a_job_that_was_handed_back_and_sends_only_the_rest(
    files: int,
    size: int,
    worker: StartWorker,
    launched: Callable[..., Job],
    lab: Portal,
    far: Portal,
    line: Relay,
) -> None:
    line.rate = size // 6
    first = worker(**LONG)
    job = launched(files, size)
    wait_for_bytes(job, size * 2 // 3)
    assert shut_down(first) < IN_TIME
    job.refresh_from_db()
    assert (job.status, job.worker, job.lease_until) == (Status.QUEUED, "", None)
    assert codes(job)[-1] == "HANDED_BACK"
    assert (job.tries, job.losses, job.error_code) == (0, 0, "")
    had, sent = job.bytes_done, line.passed[Way.UP]
    # Two parcels, or what has come of a file since the last mark.
    under_way = max(10 * MEGABYTE, size // 3)

    line.rate = 0
    worker(**LONG)
    wait_for_status(job, Status.DONE)
    assert job.attempt == 2
    assert tree(Path(far.root_path) / "in") == tree(Path(lab.root_path) / "day1")
    assert ours(Path(far.root_path)) == []
    assert job.plan["bytes_resumed"] >= had - under_way
    again = line.passed[Way.UP] - sent
    assert again < size - had + under_way + MEGABYTE


def test_a_worker_hands_its_job_back_in_time_on_a_slow_and_full_line(
    worker: StartWorker, launched: Callable[..., Job], far: Portal, line: Relay
) -> None:
    """Data still on its way to the far host must not keep the next worker from the rest."""
    line.rate = 4 * MEGABYTE
    first = worker(**LONG)
    job = launched(2400)
    wait_for_bytes(job, SIZE // 2)
    line.rate = MEGABYTE // 10
    time.sleep(2)
    assert shut_down(first) < IN_TIME
    line.rate = 0
    worker(**LONG)
    wait_for_status(job, Status.DONE)
    assert job.plan["bytes_resumed"] > SIZE // 4
    assert "WORKER_LOST" not in codes(job)


def test_an_idle_worker_ends_in_time_after_sigterm(worker: StartWorker) -> None:
    assert shut_down(worker(**LONG)) < IN_TIME


@pytest.mark.parametrize(
    ("kind", "interval", "stalled"),
    [("", 60, True), ("LateWorker", 1, False), ("ElsewhereWorker", 60, False)],
    ids=["while the host does not answer", "during a check of the job", "to another thread"],
)
def test_a_worker_hands_its_job_back_in_time_whenever_sigterm_comes(
    kind: str,
    interval: int,
    stalled: bool,
    worker: StartWorker,
    launched: Callable[..., Job],
    line: Relay,
) -> None:
    """Also to another thread than the one that waits."""
    line.rate, line.stalled = MEGABYTE, stalled
    often = {**LONG, "KETTER_REAPER_SECONDS": interval}
    chosen = ["--worker-class", f"tests.jobs.late_workers.{kind}"] if kind else []
    first = worker(*chosen, **often)
    job = launched(1)
    if stalled:
        wait_for_status(job, Status.RUNNING)
    else:
        wait_for_bytes(job, MEGABYTE)
    assert shut_down(first) < IN_TIME
    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.QUEUED, "HANDED_BACK")


def test_a_worker_hands_its_job_back_if_sigterm_comes_while_it_forks(
    worker: StartWorker, launched: Callable[..., Job], line: Relay
) -> None:
    """The worker does not know its work-horse yet then."""
    line.rate = MEGABYTE
    only = worker("--worker-class", "tests.jobs.late_workers.ForkingWorker", **LONG)
    job = launched(1)
    only.wait(IN_TIME)
    job.refresh_from_db()
    assert (job.status, codes(job)[-1]) == (Status.QUEUED, "HANDED_BACK")
