"""What the tests with real workers share: trees, and waiting for what a worker does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from jobs.models import Job
from jobs.states import Status

#: Short, so that a test need not wait long for what happens when a worker is lost.
SHORT = {"KETTER_LEASE_SECONDS": 5, "KETTER_REAPER_SECONDS": 1}
MEGABYTE = 1_000_000


def tree(root: Path) -> dict[str, bytes | None]:
    """All there is below a folder: content of files, None for folders."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def ours(root: Path) -> list[str]:
    """What Ketter has left of its own below a folder."""
    return [name for name in tree(root) if "ketter" in name]


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


def codes(job: Job) -> list[str]:
    """The codes of a job's events, in order."""
    return list(job.events.order_by("seq").values_list("code", flat=True))
