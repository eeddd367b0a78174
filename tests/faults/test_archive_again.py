"""A job that makes one archive, whose worker is killed at each boundary."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import pytest

import engine
from engine import Phase
from jobs import tasks
from jobs.models import Job
from jobs.queueing.attempts import job_lost
from jobs.running import execution
from jobs.running.observer import JobObserver
from jobs.states import Status
from jobs.tasks import run_job
from jobs.validation import problems_of
from tests.factories import JobFactory, PortalFactory
from tests.faults.crew import Stage
from tests.faults.here import Here
from tests.faults.kill_cases import cases, verdict
from tests.faults.killpoints import FINISH
from tests.faults.oracle import Oracle, names_below, whole
from tests.rig.lanes import nightly
from tests.rig.trees import build_small

OVERWRITES = ("overwrite", "overwrite-older")


class ArchiveOracle(Oracle):
    """The oracle for a job whose whole delivery is one archive."""

    def glance(self) -> None:
        """1: what is not at the source any more is in the archive."""
        held = names_below(self.source)  # Not their content: they go while one looks.
        files = {path: entry for path, entry in self.before.items() if entry.kind == "file"}
        if gone := files.keys() - held:
            packed = self.packed()
            lost = [path for path in gone if packed.get(path) != files[path].size]
            assert not lost, f"1: {lost[:5]} are neither at the source nor in the archive"

    def packed(self) -> dict[bytes, int]:
        """The files that the one archive holds, whole, with their sizes."""
        archives = [path for path in self.target.iterdir() if path.suffix == ".zip"]
        assert len(archives) == 1, f"there are {len(archives)} archives"
        with zipfile.ZipFile(archives[0]) as read:
            assert read.testzip() is None
            files = [info for info in read.infolist() if not info.is_dir()]
            return {info.filename.encode(): info.file_size for info in files}

    def judge(
        self, job: Job, *, status: Status = Status.DONE, missing: Collection[bytes] = ()
    ) -> None:
        """All that must be true once the job has ended like that."""
        job.refresh_from_db()
        assert job.status == status, f"{job.status}: {job.error_message}"
        files = {
            path: entry.size
            for path, entry in self.before.items()
            if entry.kind == "file" and path not in missing
        }
        assert self.packed() == files, "the archive is not whole, or not the only one"
        left = {path for path, entry in whole(self.source).items() if entry.kind == "file"}
        assert left == (set() if job.mode == "move" else files.keys())
        assert job.files_done == len(files)
        self.no_debris()
        self.trail_ends_once(job)
        self.nothing_else_changed()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("mode", "victim"),
    [
        ("copy", "worker"),
        ("move", "sender"),
        ("move", "receiver"),
        nightly("move", "worker"),
        nightly("move", "sshd"),
    ],
)
def test_an_archive_job_makes_one_whole_archive_whichever_process_is_killed(
    mode: str, victim: str, stage: Stage
) -> None:
    points = [point for how, point in cases(victim) if how == mode]
    jobs: list[Job] = []
    for point in points:
        job = stage.launch(
            f"{mode}-{point}",
            lambda root: build_small(root, 30),
            back=victim == "sender",
            failpoint=f"{point}:{victim}",
            mode=mode,
            strategy="archive",
        )
        seen = stage.oracles[job]
        stage.oracles[job] = ArchiveOracle(seen.source, seen.target, seen.around)
        jobs.append(job)
    stage.crew.start(4)

    stage.wait(seconds=120)

    problems = {point: verdict(stage, job) for point, job in zip(points, jobs, strict=True)}
    assert not any(problems.values()), problems
    for point, job in zip(points, jobs, strict=True):
        # Once all is published, an agent may die before it has anything left to do.
        if point not in ("cleanup", "remove_source") or victim == "worker":
            assert job.attempt > 1, f"nobody was killed at {point}"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("strategy", ["auto", nightly("archive")])
@pytest.mark.parametrize("point", ["remove_source", FINISH])
def test_a_move_of_one_file_is_done_when_its_killed_attempt_had_removed_the_source(
    point: str, strategy: str, stage: Stage
) -> None:
    def build(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"one file")

    job = stage.launch(
        "only.mov", build, failpoint=f"{point}:worker", mode="move", strategy=strategy
    )
    oracle = stage.oracles.pop(job)
    stage.crew.start(1)
    if point == "remove_source":
        # As if it had been killed right after it had removed the file.
        stage.watch(lambda: Job.objects.filter(pk=job.pk, attempt=1, phase="remove_source"))
        oracle.source.unlink(missing_ok=True)

    stage.wait(job)

    job.refresh_from_db()
    assert (job.status, job.attempt, job.files_done, job.bytes_done) == (Status.DONE, 2, 1, 8)
    if strategy == "archive":
        with zipfile.ZipFile(oracle.target / "only.mov.zip") as read:
            assert read.read("only.mov") == b"one file"
    else:
        assert oracle.target.read_bytes() == b"one file"
    assert not oracle.source.exists()
    oracle.no_debris()


def stop_at(phase: Phase, times: int = 1) -> type[JobObserver]:
    """An observer of a job that loses its line so many times as a phase begins."""
    left = [times]

    class Stopped(JobObserver):
        def phase(self, now: Phase) -> None:
            super().phase(now)
            if now is phase and left[0]:
                left[0] -= 1
                raise engine.ConnectionLost("the line was cut")

    return Stopped


@pytest.mark.django_db(transaction=True)
def test_an_archive_move_of_one_file_is_done_after_two_lost_connections(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.source.mkdir(parents=True)
    (here.source / "one").write_bytes(b"one file")
    monkeypatch.setattr(execution, "JobObserver", stop_at(Phase.REMOVE_SOURCE, 2))
    job = here.launch(mode="move", strategy="archive", source_path=f"{here.source.name}/one")
    for _ in range(2):
        job = here.attempt(job)
        assert job.status == Status.RETRY_WAIT, job.error_message
    (here.source / "one").unlink()  # As if it had been stopped a moment later.

    job = here.attempt(job)

    assert (job.status, job.files_done) == (Status.DONE, 1), job.error_message
    assert [path.name for path in here.target.iterdir()] == ["one.zip"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("vanishes", ["root", "folder"])
def test_a_retried_move_is_not_done_when_its_whole_source_has_vanished(
    vanishes: str, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unmounted disk; or a folder with one file, of which a move leaves the folder."""
    here.source.mkdir(parents=True)
    (here.source / "one").write_bytes(b"one file")
    monkeypatch.setattr(execution, "JobObserver", stop_at(Phase.REMOVE_SOURCE))
    path = here.source.name if vanishes == "folder" else f"{here.source.name}/one"
    job = here.attempt(here.launch(mode="move", source_path=path))
    assert job.status == Status.RETRY_WAIT, job.error_message
    gone = here.source if vanishes == "folder" else here.source.parent
    gone.rename(gone.with_name("away"))

    job = here.attempt(job)

    expected = {
        "folder": (Status.FAILED, "SOURCE_MISSING"),
        "root": (Status.NEEDS_ATTENTION, "ROOT_MISSING"),
    }
    assert (job.status, job.error_code) == expected[vanishes]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("policy", ["fail", "keep-both"])
@pytest.mark.parametrize("strategy", ["auto", "archive"])
def test_a_retried_move_names_the_changed_file_that_its_killed_attempt_left(
    strategy: str, policy: str, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed between the end of the engine and the record."""
    build_small(here.source, 10)

    class Changing(JobObserver):
        def phase(self, now: Phase) -> None:
            super().phase(now)
            if now is Phase.REMOVE_SOURCE:
                changed.write_bytes(b"changed")

    def killed(*_: object) -> None:
        raise engine.Replaced("as if it were killed here")

    changed = next(here.source.rglob("*.dpx"))
    monkeypatch.setattr(execution, "JobObserver", Changing)
    job = here.launch(mode="move", strategy=strategy, on_conflict=policy)
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "finish", killed)
        patch.setattr(tasks, "clear_after_end", lambda job: None)
        run_job(str(job.pk))
    job.refresh_from_db()
    job = job_lost(job, reason="killed")

    job = here.attempt(job)

    assert (job.status, job.files_done, job.files_failed) == (Status.PARTIAL, 10, 1)
    assert changed.name in job.error_message
    assert changed.read_bytes() == b"changed"
    assert not list(here.target.rglob("*(2)*")) + list(here.target.rglob(".ketter*"))


@pytest.mark.parametrize("policy", OVERWRITES)
def test_a_move_that_would_overwrite_an_archive_is_refused_at_launch(policy: str, db: None) -> None:
    order: Job = JobFactory.build(
        mode="move",
        strategy="archive",
        on_conflict=policy,
        source_portal=PortalFactory.create(),
        target_portal=PortalFactory.create(),
    )
    assert "replace the whole archive" in problems_of(order)["on_conflict"].message
