"""A web server and a worker of commit f33cc75 beside this version's schema and workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User
from rq import Worker

from jobs.models import Job
from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from tests.conftest import PROJECT
from tests.jobs.helpers import SHORT, horse_of, ours, tree, wait_for_bytes, wait_for_end
from tests.rig.events import codes

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

BASE = "f33cc75"

#: What a web server of that version does on "launch": its own models write the rows.
LAUNCH = """
from django.contrib.auth.models import User
from jobs.services import job_create
from portals.models import Portal
from portals.services import portal_create

def portal(name):
    root = Portal.objects.get(name=name).root_path
    return portal_create(name=f"older-{name}", kind="local", root_path=root)

places = {"source_path": "day1", "target_path": "in/day1"}
portals = {"source_portal": portal("lab"), "target_portal": portal("srvtrf")}
print("JOB", job_create(by=User.objects.get(username="oscar"), **portals, **places).pk)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of that commit."""
    git = ["git", "-C", str(PROJECT), "archive", "--format=tar", BASE]
    answer = subprocess.run(git, capture_output=True)
    if answer.returncode:
        pytest.skip(f"this clone is shallow: it does not have commit {BASE}")
    folder = tmp_path_factory.mktemp("base")
    with tarfile.open(fileobj=BytesIO(answer.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def older(
    base: Path, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `manage.py` of that version with the test's database, Redis and keys."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        log = tmp_path / f"older-{len(started)}.log"
        short = {name: str(value) for name, value in SHORT.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=base,
                env={**worker_env, **short},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def older_worker(
    older: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> subprocess.Popen[bytes]:
    """A worker of that version that takes jobs."""
    process = older("rqworker")
    deadline = time.monotonic() + 30
    while process.pid not in {one.pid for one in Worker.all(django_rq.get_connection())}:
        assert process.poll() is None, (tmp_path / "older-0.log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "older-0.log").read_text()
        time.sleep(0.1)
    return process


@pytest.fixture
def source(lab: Portal) -> Path:
    """A small tree at the source portal."""
    folder = Path(lab.root_path) / "day1"
    (folder / "reel").mkdir(parents=True)
    for number in range(50):
        (folder / "reel" / f"f{number}").write_bytes(os.urandom(1000 * number))
    return folder


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_worker_of_an_older_version_runs_a_job_without_new_options(
    mode: str,
    older_worker: subprocess.Popen[bytes],
    source: Path,
    oscar: User,
    order: dict[str, Any],
    srvtrf: Portal,
) -> None:
    sent = tree(source)

    job = wait_for_end(job_create(by=oscar, **order, mode=mode))

    assert (job.status, job.files_done) == (Status.DONE, 50), job.error_message
    assert job.worker.count(str(older_worker.pid)) == 1
    assert tree(Path(srvtrf.root_path) / "in/day1") == sent
    assert tree(source) == (sent if mode == "copy" else {})
    assert codes(job)[-1] == "DONE"
    assert ours(Path(srvtrf.root_path)) == []


def test_a_worker_of_this_version_runs_a_job_from_an_older_web_server(
    older: Callable[..., subprocess.Popen[bytes]],
    worker: Callable[..., subprocess.Popen[bytes]],
    source: Path,
    oscar: User,
    srvtrf: Portal,
    tmp_path: Path,
) -> None:
    launch = older("shell", "--command", LAUNCH)
    launch.wait(timeout=60)
    said = (tmp_path / "older-0.log").read_text()
    assert launch.returncode == 0, said
    job = Job.objects.get(pk=said.rpartition("JOB ")[2].strip())
    assert job.options_version == 1

    worker(**SHORT)

    assert wait_for_end(job).status == Status.DONE, job.error_message
    assert tree(Path(srvtrf.root_path) / "in/day1") == tree(source)


@pytest.mark.nightly
def test_the_old_workers_staging_folder_stays_if_a_new_worker_continues_the_job(
    older_worker: subprocess.Popen[bytes],
    worker: Callable[..., subprocess.Popen[bytes]],
    source: Path,
    oscar: User,
    order: dict[str, Any],
    srvtrf: Portal,
) -> None:
    """An older worker does not know a job's staging key: docs/operations.md says what to do."""
    job = job_create(by=oscar, **order, bandwidth_limit=100_000)
    wait_for_bytes(job)
    horse = horse_of(older_worker)
    for pid in (older_worker.pid, horse):
        os.kill(pid, signal.SIGKILL)
    Job.objects.filter(pk=job.pk).update(bandwidth_limit=0)

    worker(**SHORT)

    job = wait_for_end(job)
    assert (job.status, job.attempt) == (Status.DONE, 2), job.error_message
    target = Path(srvtrf.root_path) / "in/day1"
    left = target / f".ketter-{job.pk.hex}.part"
    assert left.is_dir()
    assert {name for name in tree(target) if not name.startswith(left.name)} == set(tree(source))


@pytest.mark.nightly
def test_the_old_worker_cannot_help_a_new_one_and_the_job_is_done(
    older: Callable[..., subprocess.Popen[bytes]],
    worker: Callable[..., subprocess.Popen[bytes]],
    source: Path,
    oscar: User,
    order: dict[str, Any],
    srvtrf: Portal,
) -> None:
    """It gives each parcel back: it looks for a staging folder without the job's key."""
    for number in range(10):
        (source / f"clip{number}").write_bytes(os.urandom(3_000_000))
    worker(**SHORT, KETTER_SPREAD_BYTES=1)
    job = job_create(by=oscar, **order, strategy="zip", bandwidth_limit=2_000_000)
    wait_for_bytes(job)
    older("rqworker")

    job = wait_for_end(job)
    assert (job.status, job.attempt) == (Status.DONE, 1), job.error_message
    assert tree(Path(srvtrf.root_path) / "in/day1") == tree(source)
    assert "HELPER_LOST" in codes(job)
