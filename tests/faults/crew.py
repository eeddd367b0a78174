"""A crew of real workers with failpoints, and the stage they work on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from jobs.models import Job
from jobs.services import job_create
from jobs.states import Status
from portals.models import Portal
from portals.services import credential_create, portal_create
from tests.faults.oracle import Oracle, Surroundings
from tests.rig.interrupted import MIB
from tests.rig.project import PROJECT
from tests.rig.sshd import Sshd, descendants, marked

#: Short, so that a test need not wait long for what happens when a worker is lost.
SHORT = {
    "KETTER_LEASE_SECONDS": 3,
    "KETTER_REAPER_SECONDS": 1,
    "KETTER_RETRY_SECONDS": 1,
    "KETTER_RETRY_MAX_SECONDS": 2,
}
#: So that a few hundred kilobytes make several parcels of each kind.
SMALL = {
    "engine.parcels.builder.LARGE": 256 << 10,
    "engine.parcels.builder.SLICE": 64 << 10,
    "engine.parcels.builder.PARCEL_BYTES": {
        "zip": [16 << 10, 16 << 10],
        "file": [32 << 10, 32 << 10],
    },
    "engine.plan.streams.WORTH_A_STREAM": 64 << 10,
}
#: A file of some MiB travels alone, and what of it was proven is put down for each MiB.
MARKED: dict[str, Any] = {
    **SMALL,
    "engine.parcels.builder.LARGE": MIB,
    "agents": [["MARK_BYTES = 16 << 20", "MARK_BYTES = 1 << 20"]],
}


class Crew:
    """Some workers, as many all the time, whoever of them dies.

    A `wrapper` is a command that becomes theirs: it says on which machine they run.
    """

    def __init__(self, env: Mapping[str, str], folder: Path, wrapper: Sequence[str] = ()) -> None:
        self._env, self._wrapper = dict(env), wrapper
        self._process: subprocess.Popen[bytes] | None = None
        # It passes to ssh and agents as well, which see little of the environment.
        self.mark = f"LC_KETTER_FAULTS={uuid.uuid4().hex}"
        # Short, so that connections are shared as they are in real life.
        self.temp = Path(tempfile.mkdtemp(prefix="kf-", dir="/tmp"))
        self.log = folder / "crew.log"

    def start(self, number: int = 1, tweaks: Mapping[str, Any] = SMALL, **env: object) -> None:
        """Start so many workers; they take jobs as soon as they are up."""
        name, _, value = self.mark.partition("=")
        more = {**SHORT, **env, name: value, "TMPDIR": self.temp}
        more["KETTER_FAULTS_TWEAKS"] = json.dumps(dict(tweaks))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-m", "tests.faults.launcher", str(number)],
                cwd=PROJECT,
                env={**self._env, **{key: str(given) for key, given in more.items()}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the workers, and whatever of theirs is left."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process.kill()
        for pid in marked(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """Stop, and remove the temporary folder."""
        self.stop()
        shutil.rmtree(self.temp, ignore_errors=True)

    def workers(self) -> set[int]:
        """The processes that live on: the workers, and who keeps them."""
        if self._process is None or self._process.poll() is not None:
            return set()
        top = self._process.pid
        below = descendants(top)
        return {top, *(pid for pid in below if _parent(pid) == top)}

    def horses(self, worker: int) -> list[int]:
        """The processes in which a worker runs its job."""
        return [pid for pid in descendants(worker) if _parent(pid) == worker]

    def check(self) -> None:
        """Fail with what the workers said if they are gone."""
        assert self._process is not None
        assert self._process.poll() is None, self.said()

    def said(self) -> str:
        """The end of what the workers said."""
        return self.log.read_text("utf-8", "replace")[-4000:] if self.log.exists() else ""


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


@dataclass
class Stage:
    """Two portals with what lies beside them, and who launches jobs between them."""

    near: Portal
    far: Portal
    by: User
    crew: Crew
    sshd: Sshd
    quiet: list[Path]
    secrets: Sequence[str]
    oracles: dict[Job, Oracle] = field(default_factory=dict)

    def launch(
        self,
        name: str,
        build: Callable[[Path], object],
        *,
        back: bool = False,
        failpoint: str = "",
        target_path: str = "",
        **order: Any,
    ) -> Job:
        """Launch a job over a tree of its own, from the near portal to the far one, or back."""
        source, target = (self.far, self.near) if back else (self.near, self.far)
        build(Path(source.root_path) / name)
        target_path = target_path or f"in/{name}"
        place = Path(target.root_path) / target_path
        oracle = Oracle(Path(source.root_path) / name, place, self.surroundings)
        job = job_create(
            by=self.by,
            source_portal=source,
            source_path=name,
            target_portal=target,
            target_path=target_path,
            idempotency_key=f"{failpoint}:{name}" if failpoint else "",
            **order,
        )
        self.oracles[job] = oracle
        return job

    @property
    def surroundings(self) -> Surroundings:
        """What a job on this stage must leave alone."""
        return Surroundings(
            roots=[Path(self.near.root_path), Path(self.far.root_path)],
            quiet=self.quiet,
            temp=self.crew.temp,
            mark=self.crew.mark,
            ours=self.crew.workers,
            sessions=self.sshd.sessions,
            secrets=self.secrets,
            logs=[self.crew.log],
        )

    def watch(self, until: Callable[[], object], seconds: float = 60) -> None:
        """Wait until something is true, with an eye on each job in turn."""
        deadline = time.monotonic() + seconds
        turn = itertools.cycle(self.oracles.values())
        while not until():
            assert time.monotonic() < deadline, f"not in time: {self.told()}\n{self.crew.said()}"
            self.crew.check()
            if oracle := next(turn, None):
                oracle.glance()
            time.sleep(0.1)

    def wait(self, *jobs: Job, seconds: float = 60) -> None:
        """Wait until jobs have ended; all of them if none is named."""
        wanted = [job.pk for job in jobs or self.oracles]
        live = Job.objects.filter(pk__in=wanted).exclude(finished_at__isnull=False)
        self.watch(lambda: not live.exists(), seconds)

    def told(self) -> str:
        """Where every job is."""
        rows = Job.objects.values_list("target_path", "status", "attempt", "phase", "error_message")
        return "; ".join(str(row) for row in rows)


#: Sets the stage: with an sshd, and the port of a line to it.
MakeStage = Callable[..., Stage]


def worker_of(job: Job) -> int:
    """The process of the worker that has a job."""
    job.refresh_from_db()
    return int(job.worker.split(".")[-2])


def in_state(job: Job, *wanted: Status) -> Callable[[], bool]:
    """Whether a job is in one of those states."""
    return lambda: Job.objects.filter(pk=job.pk, status__in=wanted).exists()


def kill_with_horse(stage: Stage, worker: int) -> None:
    """Kill a worker and what it runs, as when a machine dies."""
    for pid in (worker, *stage.crew.horses(worker)):
        os.kill(pid, signal.SIGKILL)


def ssh_portal(name: str, sshd: Sshd, root: Path, port: int = 0) -> Portal:
    """A portal behind an sshd."""
    key = credential_create(name=name, kind="private_key", secret=sshd.identity_file.read_text())
    return portal_create(
        name=name,
        kind="ssh",
        host=sshd.host,
        port=port or sshd.port,
        username=sshd.username,
        root_path=str(root),
        host_key=sshd.host_key,
        credential=key,
    )
