"""What the tests of jobs share: trees, pages, processes, and waiting for what a worker does."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from django.urls import reverse

from jobs.models import Job
from jobs.states import Status

#: Short, so that a test need not wait long for what happens when a worker is lost.
SHORT = {"KETTER_LEASE_SECONDS": 5, "KETTER_REAPER_SECONDS": 1}
MEGABYTE = 1_000_000
#: What a launch may limit, each with another value than its default.
LIMITS = {"priority": 7, "bandwidth_limit": 5_000_000, "max_tries": 3, "streams": 2}


def build_many(folder: Path, large_bytes: int) -> Path:
    """Make a tree of 300 small files and a larger one; returns its folder."""
    for number in range(300):
        path = folder / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number))
    (folder / "large.bin").write_bytes(os.urandom(large_bytes))
    return folder


def tree(root: Path) -> dict[str, bytes | None]:
    """All there is below a folder: content of files, None for folders."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def ours(root: Path) -> list[str]:
    """What Ketter has left of its own below a folder."""
    return [name for name in tree(root) if "ketter" in name]


def page_of(job: Job) -> str:
    """The address of a job's page in the admin."""
    return reverse("admin:jobs_job_change", args=[job.pk])


def wait_for(true: Callable[[], object], seconds: float = 30) -> float:
    """Wait until something is true; returns how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() < began + seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began


def wait_for_status(job: Job, *statuses: Status, seconds: float = 40) -> float:
    """Wait until a job is in one of some states; returns how long that took."""

    def there() -> bool:
        job.refresh_from_db()
        return job.status in statuses

    return wait_for(there, seconds)


def wait_for_bytes(job: Job, least: int = 1) -> None:
    """Wait until a transfer is under way."""

    def moving() -> bool:
        job.refresh_from_db()
        return job.status == Status.RUNNING and job.bytes_done >= least

    wait_for(moving)


def wait_for_end(job: Job, seconds: float = 40) -> Job:
    """Wait until a job has ended."""

    def ended() -> bool:
        job.refresh_from_db()
        return not job.is_live

    wait_for(ended, seconds)
    return job


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
    """Whether a process runs (a zombie does not)."""
    _, state = processes().get(pid, (0, "Z"))
    return not state.startswith("Z")
