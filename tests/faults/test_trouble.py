"""A machine or a disk in trouble: what had arrived stays, and the job is tried again or asks."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from engine import phases
from jobs.models import Job
from jobs.services import job_cancel, job_resume
from jobs.states import Status
from tests.faults import killpoints
from tests.faults.crew import ssh_portal
from tests.faults.here import Here
from tests.rig.planted_code import WRAP_EXCLUSIVE_RENAME, Plant
from tests.rig.sshd import Sshd
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db

#: Has a rename into the target fail, once, with that number.
FAILING = (
    WRAP_EXCLUSIVE_RENAME
    + """
def _failing():
    import os
    def failing(call):
        def rename_once(fd, name, new_fd, new_name, flag):
            if b"reel_02" in new_name and not os.path.exists(MARK):
                os.close(os.open(MARK, os.O_CREAT | os.O_WRONLY))
                raise OSError(NUMBER, os.strerror(NUMBER))
            return call(fd, name, new_fd, new_name, flag)
        return rename_once
    _wrap_exclusive_rename(failing)
_failing()
"""
)


@pytest.fixture
def source(here: Here) -> Path:
    """Some reels of small files."""
    build_small(here.source, 40)
    return here.source


def staged(here: Here) -> bool:
    """Whether something is kept at the target to go on from."""
    return any(here.target.glob(".ketter-*.part"))


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (errno.ESTALE, Status.RETRY_WAIT, "HOST_TROUBLE"),
        (errno.EMFILE, Status.RETRY_WAIT, "HOST_TROUBLE"),
        (errno.EIO, Status.NEEDS_ATTENTION, "DISK_ERROR"),
    ],
)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_keeps_what_arrived_when_the_disk_fails_during_publishing(
    here: Here, source: Path, plant: Plant, tmp_path: Path, number: int, status: str, code: str,
    mode: str,
) -> None:  # fmt: skip
    mark = repr(str(tmp_path / "mark"))
    plant(FAILING.replace("MARK", mark).replace("NUMBER", str(number)))

    job = here.run(mode=mode)

    assert (job.status, job.error_code) == (status, code), job.error_message
    assert staged(here)
    go_on(here, job)
    here.judge(job)


def go_on(here: Here, job: Job) -> None:
    """Have somebody resume a job that asks for it, and run it."""
    if job.status == Status.NEEDS_ATTENTION:
        job_resume(job, by=here.by)
    here.attempt(job)


def no_process(*_: Any, **__: Any) -> None:
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("what", "name", "fails"),
    [(subprocess, "Popen", no_process), (threading.Thread, "start", no_thread)],
)
def test_a_job_keeps_what_arrived_when_its_worker_can_start_no_process_or_thread(
    here: Here, source: Path, what: Any, name: str, fails: Callable[..., None]
) -> None:
    job = here.run(at="publish", meddle=killpoints.lose_an_agent)
    assert (job.status, job.error_code) == (Status.RETRY_WAIT, "AGENT_LOST")
    assert staged(here)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(what, name, fails)
        here.attempt(job)

    assert (job.status, job.error_code) == (Status.RETRY_WAIT, "HOST_TROUBLE")
    assert "an error on the machine that runs the transfer" in job.error_message
    assert staged(here)
    here.attempt(job)
    assert job.plan["resumed"] == 40
    here.judge(job)


def test_a_job_is_retried_when_the_temporary_folder_has_no_room(
    here: Here,
    source: Path,
    sshd: Sshd,
    small_disk: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There the keys for ssh would lie."""
    disk = small_disk("temporary", nr_inodes=1)  # The top folder's.
    far = ssh_portal("far", sshd, Path(here.srvtrf.root_path))
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", str(disk))

        job = here.run(target_portal=far)

    assert (job.status, job.error_code) == (Status.RETRY_WAIT, "HOST_TROUBLE")
    assert "No space left on device" in job.error_message
    here.attempt(job)
    here.judge(job)


def test_a_job_keeps_what_arrived_when_a_bug_ends_its_attempt(
    here: Here, source: Path, monkeypatch: pytest.MonkeyPatch, oscar: User
) -> None:
    def broken(_: phases.Transfer) -> None:
        raise ZeroDivisionError("oops")

    jobs = [here.launch(), here.launch(target_path="in/day2")]
    with monkeypatch.context() as patch:
        patch.setattr(phases.Transfer, "_publish", broken)
        for job in jobs:
            with pytest.raises(ZeroDivisionError):
                here.attempt(job)
            job.refresh_from_db()

            assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "INTERNAL")
            assert "ZeroDivisionError: oops" in job.error_message
    assert staged(here)
    job_resume(jobs[0], by=oscar)
    here.attempt(jobs[0])
    assert jobs[0].plan["resumed"] == 40
    job_cancel(jobs[1], by=oscar)
    here.attempt(jobs[1])

    assert jobs[1].status == Status.CANCELLED
    here.judge(jobs[0])  # Without debris of either.


def test_a_cancelled_job_whose_cleanup_meets_a_bug_ends_and_reports_its_leftovers(
    here: Here, source: Path, monkeypatch: pytest.MonkeyPatch, oscar: User
) -> None:
    """Queued again, it would meet the bug again, and again."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    job = here.run(at="publish", meddle=killpoints.lose_an_agent)
    job_cancel(job, by=oscar)
    monkeypatch.setattr("engine.discard", broken)
    with pytest.raises(ZeroDivisionError):
        here.attempt(job)

    job.refresh_from_db()
    assert job.status == Status.CANCELLED
    event = job.events.order_by("-seq")[0]
    assert (event.code, event.level) == ("STAGING_LEFT", "error")
