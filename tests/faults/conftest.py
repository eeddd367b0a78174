"""The stage of every fault: real workers, two portals, an sshd, and what must stay as it is."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from django.contrib.auth.models import User

from jobs.models import Job
from jobs.running import execution
from jobs.services import job_create
from portals.services import portal_create
from tests.factories import PortalFactory
from tests.faults import killpoints
from tests.faults.crew import Crew, MakeStage, Stage, ssh_portal
from tests.faults.here import Here
from tests.faults.oracle import Surroundings
from tests.faults.own_redis import Redis, start_worker
from tests.rig.sshd import Sshd, end_tree

if TYPE_CHECKING:
    import redis


@pytest.fixture
def crew(worker_env: dict[str, str], tmp_path: Path) -> Iterator[Crew]:
    """Workers that are not started yet; whatever of theirs is left is ended afterwards."""
    crew = Crew(worker_env, tmp_path)
    yield crew
    crew.close()


@pytest.fixture
def make_stage(crew: Crew, oscar: User, tmp_path: Path) -> MakeStage:
    """Set the stage: a portal on this machine and one behind an sshd, or behind a line to it."""

    def make(sshd: Sshd, port: int = 0) -> Stage:
        quiet = [tmp_path / "canary"]
        for name in ("lab", "srvtrf"):
            quiet.append(tmp_path / name / "bystander")
        for folder in quiet:
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"somebody's")
        secret = sshd.identity_file.read_text()
        near = portal_create(name="lab", kind="local", root_path=str(tmp_path / "lab"))
        far = ssh_portal("srvtrf", sshd, tmp_path / "srvtrf", port)
        lines = [line for line in secret.splitlines() if not line.startswith("---")]
        secrets = [*lines, os.environ["KETTER_FIELD_KEYS"], os.environ["KETTER_SECRET_KEY"]]
        return Stage(near, far, oscar, crew, sshd, quiet, secrets)

    return make


@pytest.fixture
def stage(make_stage: MakeStage, sshd: Sshd) -> Stage:
    """The stage with the run's sshd, which must not be changed."""
    return make_stage(sshd)


@pytest.fixture
def here(
    db: None,
    clean_redis: redis.Redis,
    oscar: User,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Here]:
    """The same stage for jobs that are run in this process, between two local portals."""
    name, value = "LC_KETTER_FAULTS", uuid.uuid4().hex
    monkeypatch.setenv(name, value)
    quiet = [tmp_path / "canary", tmp_path / "lab/bystander", tmp_path / "srvtrf/bystander"]
    for folder in quiet:
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"somebody's")
    roots = [tmp_path / "lab", tmp_path / "srvtrf"]
    lab, srvtrf = (
        portal_create(name=root.name, kind="local", root_path=str(root)) for root in roots
    )
    surroundings = Surroundings(roots, quiet, mark=f"{name}={value}")
    with (
        mock.patch.object(execution, "JobObserver", killpoints.StruckObserver),
        mock.patch.dict(killpoints.DEEDS),
        mock.patch.object(killpoints, "MARKS", str(tmp_path)),
    ):
        yield Here(lab, srvtrf, oscar, surroundings)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mount a small tmpfs: `small_disk("srvtrf", size="1m", nr_inodes=50)`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mounted: list[Path] = []

    def mount(name: str, **options: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        asked = ",".join(f"{key}={value}" for key, value in options.items())
        command = ["mount", "-t", "tmpfs", "-o", asked, "ketter-faults", str(folder)]
        subprocess.run(command, check=True, timeout=10)
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True, timeout=10)


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """That Valkey; below a short folder, for its socket's sake."""
    server = Redis(tmp_path_factory.mktemp("v"))
    yield server
    server.kill()


@pytest.fixture
def lone_worker(
    own_redis: Redis, worker_env: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker at that Redis, with its log beside."""
    process = start_worker(own_redis, worker_env, tmp_path / "log")
    yield process
    end_tree(process.pid)
    process.wait()


@pytest.fixture
def launch(oscar: User, tmp_path: Path) -> Callable[[str], Job]:
    """Launch a copy that lasts some seconds."""
    for name in ("lab", "srvtrf"):
        (tmp_path / name).mkdir()
    (tmp_path / "lab" / "a.bin").write_bytes(os.urandom(3 * 1_000_000))
    lab, srvtrf = (
        PortalFactory.create(name=name, root_path=str(tmp_path / name))
        for name in ("lab", "srvtrf")
    )

    def launch(target: str) -> Job:
        order: dict[str, Any] = {"source_path": "a.bin", "target_path": f"{target}/"}
        order |= {"source_portal": lab, "target_portal": srvtrf, "bandwidth_limit": 1_000_000}
        return job_create(by=oscar, **order)

    return launch
