"""Pausing and cancelling a job that runs: in time, in every phase, with nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from engine.types import Phase
from jobs.models import Job
from jobs.services import job_cancel, job_create, job_pause, job_resume
from jobs.states import Status
from portals.models import Portal
from tests.jobs.helpers import (
    MEGABYTE,
    SHORT,
    codes,
    ours,
    tree,
    wait_for,
    wait_for_bytes,
    wait_for_status,
)
from tests.rig.relay import Relay

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

StartWorker = Callable[..., subprocess.Popen[bytes]]
#: What holds a job up in a phase, for some seconds; a transfer is held up by the line.
HOLDS = {
    Phase.PREFLIGHT: "look=6",
    Phase.SCAN: "scan=6",
    Phase.TRANSFER: "",
    Phase.PUBLISH: "publish=6",
    Phase.REMOVE_SOURCE: "remove=6",
}


def in_time() -> float:
    """What is promised, in seconds: two, on a machine that has no more to do than it can."""
    return 2.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def source(lab: Portal) -> Path:
    """A tree with many small files and a larger one, at the source portal."""
    folder = Path(lab.root_path) / "day1"
    for number in range(300):
        path = folder / f"d{number % 7}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number))
    (folder / "large.bin").write_bytes(os.urandom(6 * MEGABYTE))
    return folder


@pytest.fixture
def caught(
    worker: StartWorker, source: Path, oscar: User, lab: Portal, far: Portal, line: Relay
) -> Callable[..., Job]:
    """Launch a move and return it once a phase has begun, which then lasts for some seconds."""

    def catch(phase: Phase, hold: str = "") -> Job:
        line.rate = MEGABYTE if phase is Phase.TRANSFER else 0
        slow = ["--worker-class", "tests.jobs.slow_worker.SlowWorker"]
        worker(*slow, **SHORT, KETTER_TEST_SLOW=hold or HOLDS[phase])
        places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
        job = job_create(by=oscar, mode="move", target_path="in", **places)

        def there() -> bool:
            job.refresh_from_db()
            return job.phase == phase and (phase is not Phase.TRANSFER or job.bytes_done > 0)

        wait_for(there)
        return job

    return catch


@pytest.mark.parametrize("phase", list(HOLDS))
def test_a_pause_is_in_time_and_the_tree_is_whole_after_it(
    phase: Phase,
    caught: Callable[..., Job],
    oscar: User,
    source: Path,
    far: Portal,
    line: Relay,
) -> None:
    sent, root = tree(source), Path(far.root_path)
    job = job_pause(caught(phase), by=oscar)
    took = wait_for_status(job, Status.PAUSED, Status.DONE)
    assert job.status == Status.PAUSED
    assert took < in_time()
    assert tree(source) == sent
    line.rate = 0
    job_resume(job, by=oscar)
    wait_for_status(job, Status.DONE)
    assert (tree(root / "in"), tree(source)) == (sent, {})
    assert ours(root) == []


@pytest.mark.parametrize("phase", list(HOLDS))
def test_a_cancellation_is_in_time_and_leaves_nothing(
    phase: Phase, caught: Callable[..., Job], oscar: User, source: Path, far: Portal
) -> None:
    sent, root = tree(source), Path(far.root_path)
    job = job_cancel(caught(phase), by=oscar)
    took = wait_for_status(job, Status.CANCELLED, Status.DONE)
    assert (job.status, codes(job)[-1]) == (Status.CANCELLED, "CANCELLED")
    assert took < in_time()
    assert tree(source) == sent
    if phase is Phase.REMOVE_SOURCE:  # All is in place by then.
        assert tree(root / "in") == sent
    else:
        assert tree(root) == {}


def test_a_cancellation_does_not_wait_for_what_a_slow_line_holds(
    worker: StartWorker, source: Path, oscar: User, lab: Portal, far: Portal, line: Relay
) -> None:
    line.rate = MEGABYTE
    worker(**SHORT)
    places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
    job = job_create(by=oscar, target_path="in", **places)
    wait_for_bytes(job, 2 * MEGABYTE)
    line.rate = MEGABYTE // 5
    job_cancel(job, by=oscar)
    took = wait_for_status(job, Status.CANCELLED)
    assert took < 2 * in_time()  # The line is as slow for our own words.
    assert tree(Path(far.root_path)) == {}
    assert "WORKER_LOST" not in codes(job)


def test_a_pause_is_in_time_while_the_host_says_nothing(
    worker: StartWorker, source: Path, oscar: User, lab: Portal, far: Portal, line: Relay
) -> None:
    worker(**SHORT)
    places = {"source_portal": lab, "source_path": "day1", "target_portal": far}
    job = job_create(by=oscar, target_path="in", **places)
    wait_for_bytes(job, MEGABYTE)
    line.stalled = True
    job_pause(job, by=oscar)
    assert wait_for_status(job, Status.PAUSED) < in_time()
    line.stalled, line.rate = False, 0
    job_resume(job, by=oscar)
    wait_for_status(job, Status.DONE)
    assert tree(Path(far.root_path) / "in") == tree(source)
    assert ours(Path(far.root_path)) == []


@pytest.mark.parametrize("act", [job_pause, job_cancel])
def test_a_stop_amid_the_renames_shows_whole_files_only(
    act: Callable[..., Job],
    caught: Callable[..., Job],
    oscar: User,
    source: Path,
    far: Portal,
) -> None:
    sent, root = tree(source), Path(far.root_path)
    job = caught(Phase.PUBLISH, "rename=1")
    wait_for(lambda: len([name for name in (root / "in").iterdir() if "ketter" not in name.name]))
    act(job, by=oscar)
    assert wait_for_status(job, Status.PAUSED, Status.CANCELLED) < in_time()
    there = {name: data for name, data in tree(root / "in").items() if "ketter" not in name}
    assert 0 < len(there) < len(sent)
    assert there.items() <= sent.items()
    assert tree(source) == sent
    if act is job_cancel:
        assert ours(root) == []
        return
    job_resume(job, by=oscar)
    wait_for_status(job, Status.DONE)
    assert (tree(root / "in"), tree(source), ours(root)) == (sent, {}, [])
