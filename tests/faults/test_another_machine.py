"""A worker on another machine joins with nothing but the database and Redis in common.

It runs in a mount namespace of its own, where the roots of the portals, the first worker's
temporary folder and sshd's are empty: what it brings over, it brings over SSH. A portal of the
kind *this machine* is on the first machine: the worker here leaves it alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.models import Job
from jobs.queueing.notify import idle_workers
from jobs.states import Status
from tests.faults.crew import Crew, Stage, ssh_portal
from tests.rig.events import codes
from tests.rig.interrupted import MIB
from tests.rig.trees import build_small

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

NAME = "otherhost"
#: Another name, and nothing in the folders that are named before the `--`.
OWN = f"""
hostname {NAME} || exit
while [ "$1" != -- ]; do mount -t tmpfs nothing "$1" || exit; shift; done
shift; exec "$@"
"""
JOBS = 12


@pytest.fixture
def there(stage: Stage, worker_env: dict[str, str], tmp_path: Path) -> Iterator[Stage]:
    """The same stage as another machine sees it: its workers do not see the roots."""
    own = ["unshare", "--mount", "--uts", "sh", "-c", OWN, "sh"]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a machine of its own, without the first one's files, needs root and unshare")
    tried = [*own, str(tmp_path), "--", "true"]
    if subprocess.run(tried, check=False, capture_output=True).returncode:
        pytest.skip("a machine of its own cannot be made here: namespaces are not allowed")
    hidden = [tmp_path, stage.crew.temp, stage.sshd.folder]
    env = {**worker_env, "KETTER_MACHINE": NAME}
    crew = Crew(env, tmp_path / "there", [*own, *map(str, hidden), "--"])
    crew.log.parent.mkdir()
    yield replace(stage, crew=crew)
    crew.close()


def over_ssh(stage: Stage) -> Stage:
    """The same stage with both of its portals behind the sshd."""
    near = ssh_portal("lab_by_ssh", stage.sshd, Path(stage.near.root_path))
    return replace(stage, near=near)


def seen_by(stage: Stage, folder: Path) -> list[str]:
    """What the workers of a stage see in a folder, all of them together."""
    workers = stage.crew.workers()
    assert workers
    return [name for pid in workers for name in os.listdir(f"/proc/{pid}/root{folder}")]


def both_start(here: Stage, there: Stage, **env: object) -> None:
    """A worker on either machine, and both wait for work."""
    here.crew.start(1, **env)
    there.crew.start(1, **env)
    here.watch(lambda: idle_workers() == 2)


def test_workers_on_two_machines_share_the_jobs_between_ssh_portals(
    stage: Stage, there: Stage, tmp_path: Path
) -> None:
    here = over_ssh(stage)
    both_start(here, there)
    assert seen_by(there, tmp_path) == []

    jobs = [
        here.launch(f"day{number}", lambda root: build_small(root, 20), mode=mode)
        for number, mode in enumerate(["copy", "move"] * (JOBS // 2))
    ]

    here.wait()
    began = {job: job.events.get(code="STARTED").message for job in jobs}
    abroad = [job for job in jobs if f" {NAME}." in began[job]]
    for job in abroad:
        here.oracles[job].around = there.surroundings
    for job in jobs:
        here.oracles[job].judge(job)
        assert codes(job) == ["CREATED", "STARTED", "DONE"]
    assert len({job.worker for job in jobs}) == 2
    assert {job for job in jobs if job.worker.startswith(f"{NAME}.")} == set(abroad)
    assert 0 < len(abroad) < JOBS
    assert seen_by(there, tmp_path) == []


def test_a_worker_on_another_machine_helps_with_a_large_job(stage: Stage, there: Stage) -> None:
    here = over_ssh(stage)
    both_start(here, there, KETTER_SPREAD_BYTES=1)

    job = here.launch("day1", build_parcels, bandwidth_limit=MIB)

    here.wait()
    here.oracles[job].judge(job)
    here.oracles[job].around = there.surroundings
    here.oracles[job].no_debris()
    (joined,) = job.events.filter(code="HELPER_JOINED")
    assert NAME in job.worker + joined.message
    assert (job.attempt, "HELPER_LOST" in codes(job)) == (1, False)


def build_parcels(root: Path) -> None:
    """Some MiB in many parcels."""
    root.mkdir(parents=True)
    for number in range(60):
        (root / f"clip{number:02}").write_bytes(os.urandom(40_000))


@pytest.mark.parametrize("back", [False, True], ids=["as source", "as target"])
def test_a_move_over_a_local_portal_waits_for_its_machine_though_another_has_the_same_folder(
    stage: Stage, there: Stage, tmp_path: Path, back: bool
) -> None:
    there.crew.start(1)
    there.watch(lambda: idle_workers(NAME) == 1)
    folders = twin_folders(there)
    job = there.launch("day1", build_small, back=back, mode="move")

    there.watch(lambda: Job.objects.exclude(waits_for="").exists())
    time.sleep(3)  # Three looks of its reaper.

    job.refresh_from_db()
    assert (job.status, job.attempt) == (Status.QUEUED, 0)
    assert f"If “{NAME}” is that machine under a new name" in job.waits_for
    assert there.oracles[job].trees() == (there.oracles[job].before, {})
    assert twin_folders(there, make=False) == folders
    stage.crew.start(1)
    stage.wait()
    stage.oracles[job].around = stage.surroundings
    stage.oracles[job].judge(job)
    assert (job.attempt, NAME in job.worker) == (1, False)
    assert twin_folders(there, make=False) == folders


def twin_folders(there: Stage, *, make: bool = True) -> dict[str, bytes]:
    """What lies in folders of the near portal's paths on the other machine; made if asked."""
    worker = min(there.crew.workers())
    root = Path(f"/proc/{worker}/root{there.near.root_path}")
    if make:
        for name in ("day1/shot", "in/day1/shot"):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(b"of the other machine")
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_no_worker_of_another_machine_helps_with_a_job_over_a_local_portal(
    stage: Stage, there: Stage, tmp_path: Path
) -> None:
    stage.crew.start(1, KETTER_SPREAD_BYTES=1)
    there.crew.start(1, KETTER_SPREAD_BYTES=1)
    stage.watch(lambda: (idle_workers(), idle_workers(NAME)) == (2, 1))

    job = stage.launch("day1", build_parcels, back=True, bandwidth_limit=MIB // 4)

    stage.wait()
    stage.oracles[job].around = stage.surroundings
    stage.oracles[job].judge(job)
    assert NAME not in job.worker
    assert codes(job) == ["CREATED", "STARTED", "DONE"]
    assert seen_by(there, tmp_path) == []
