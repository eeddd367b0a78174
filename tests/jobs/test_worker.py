"""Real `manage.py rqworker` processes, the real engine, and what happens when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User

from jobs import reaper
from jobs.models import Job
from jobs.queue import ring
from jobs.services import job_cancel, job_create
from jobs.states import Status
from portals.models import Portal
from tests.rig.relay import Relay

pytestmark = pytest.mark.django_db(transaction=True)

StartWorker = Callable[..., subprocess.Popen[bytes]]
#: Short, so that a test need not wait long for what happens when a worker is lost.
SHORT = {"KETTER_LEASE_SECONDS": 3, "KETTER_REAPER_SECONDS": 1}
MEGABYTE = 1_000_000


@pytest.fixture
def source(lab: Portal) -> Path:
    """A tree with many small files and a larger one, at the source portal."""
    folder = Path(lab.root_path) / "day1"
    for number in range(300):
        path = folder / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number))
    (folder / "large.bin").write_bytes(os.urandom(12 * MEGABYTE))
    return folder


def tree(root: Path) -> dict[str, bytes | None]:
    """All there is below a folder: content of files, None for folders."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def wait_for(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def wait_for_end(job: Job, seconds: float = 40) -> Job:
    """Wait until a job has ended."""

    def ended() -> bool:
        job.refresh_from_db()
        return not job.is_live

    wait_for(ended, seconds)
    return job


def wait_for_bytes(job: Job) -> None:
    """Wait until a transfer is under way."""

    def moving() -> bool:
        job.refresh_from_db()
        return job.status == Status.RUNNING and job.bytes_done > 0

    wait_for(moving)


def codes(job: Job) -> list[str]:
    """The codes of a job's events, in order."""
    return list(job.events.order_by("seq").values_list("code", flat=True))


def processes() -> dict[int, tuple[int, str]]:
    """Every process with its parent and its state; from `ps` only where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, check=True, text=True
        )
        rows = [row.split() for row in listing.stdout.splitlines()]
        return {int(pid): (int(parent), state) for pid, parent, state in rows}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended while we looked.
        found[int(stat.parent.name)] = (int(parent), state)
    return found


def horse_of(worker: subprocess.Popen[bytes]) -> int:
    """The process in which a busy worker runs its job."""
    (horse,) = [pid for pid, (parent, _) in processes().items() if parent == worker.pid]
    return horse


def is_alive(pid: int) -> bool:
    """Whether a process runs (one that nobody has collected yet does not)."""
    _, state = processes().get(pid, (0, "Z"))
    return not state.startswith("Z")


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_it_carries_a_tree_and_ends_done(
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
    assert not [name for name in tree(Path(srvtrf.root_path)) if "ketter" in name]


def test_another_worker_finishes_what_a_killed_one_began(
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


def test_a_worker_whose_process_died_has_the_job_again_at_once(
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


def test_an_orphan_hands_its_job_back_and_ends(
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


def test_it_stops_a_running_job_when_asked_and_reaps_meanwhile(
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


def test_it_runs_once_what_is_delivered_three_times(
    worker: StartWorker, source: Path, oscar: User, order: dict[str, Any]
) -> None:
    job = job_create(by=oscar, **order)
    ring(job.pk)
    ring(job.pk)
    worker(**SHORT)
    worker(**SHORT)
    job = wait_for_end(job)
    wait_for(lambda: not django_rq.get_queue().job_ids)
    assert job.status == Status.DONE
    assert codes(job).count("STARTED") == 1


def test_an_idle_worker_rings_again_for_a_job_that_redis_forgot(
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
def test_bad_input_ends_failed_with_the_event_that_says_why(
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
