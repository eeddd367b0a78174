"""A worker on another machine joins with nothing but the database and Redis in common.

It runs in a mount namespace of its own, where the roots of the portals, the first worker's
temporary folder and sshd's are empty: what it brings over, it brings over SSH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.models import Job
from jobs.queueing.notify import idle_workers
from jobs.services import job_resume
from jobs.states import Status
from tests.faults.crew import Crew, Stage, in_state, ssh_portal
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
    crew = Crew(worker_env, tmp_path / "there", [*own, *map(str, hidden), "--"])
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
def test_a_job_needs_attention_when_its_worker_lacks_the_root_of_a_local_portal(
    stage: Stage, there: Stage, tmp_path: Path, back: bool
) -> None:
    there.crew.start(1)
    job = there.launch("day1", build_small, back=back)

    there.watch(in_state(job, Status.NEEDS_ATTENTION), 20)

    job.refresh_from_db()
    assert (job.error_code, job.attempt) == ("ROOT_MISSING", 1)
    assert there.near.root_path in job.error_message
    assert there.oracles[job].trees() == (there.oracles[job].before, {})
    assert seen_by(there, tmp_path) == []
    there.crew.stop()
    stage.crew.start(1)
    job_resume(Job.objects.get(pk=job.pk), by=stage.by)
    stage.wait()
    stage.oracles[job].judge(job)
    assert job.attempt == 2


def test_a_helper_that_lacks_the_root_of_a_local_portal_gives_its_parcels_back(
    stage: Stage, there: Stage, tmp_path: Path
) -> None:
    stage.crew.start(1, KETTER_SPREAD_BYTES=1)
    job = stage.launch("day1", build_parcels, back=True, bandwidth_limit=MIB // 4)
    stage.watch(in_state(job, Status.RUNNING))

    there.crew.start(1)

    stage.wait()
    stage.oracles[job].judge(job)
    assert NAME not in job.worker
    assert (job.attempt, "HELPER_LOST" in codes(job)) == (1, True)
    assert seen_by(there, tmp_path) == []
