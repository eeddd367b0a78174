"""A large job over several workers: who helps may die, freeze or be told to end at any moment."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from jobs.choices import LeaseState
from jobs.models import Job, ParcelLease
from jobs.queueing.notify import idle_workers
from jobs.services import job_cancel, job_pause, job_resume
from jobs.states import Status
from tests.faults.crew import SMALL, MakeStage, Stage, in_state, kill_with_horse, worker_of
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large
from tests.rig.lanes import nightly
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd, descendants
from tests.rig.trees import build_small

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

IMPATIENT = {**SMALL, "agents": [["FENCE_OUT_SECONDS = 15.0", "FENCE_OUT_SECONDS = 3.0"]]}
#: Two streams, as between machines with many processors: then a large file goes in slices.
SLICED = {
    **SMALL,
    # However long a busy machine takes for a round trip: helpers need room beside the streams.
    "engine.plan.streams.NEAR": 60.0,
    "engine.plan.streams.MANY_CORES": 1,
    "engine.plan.streams.MANY_BYTES": 0,
    "agents": [["os.cpu_count() or 1", "8"]],
}


def build(root: Path) -> None:
    """Parcels of both kinds, and a file that travels alone."""
    dice = random.Random(7)
    build_small(root, files=200)
    for number in range(40):
        (root / f"clip{number:02}").write_bytes(dice.randbytes(40_000))
    (root / "tape").write_bytes(dice.randbytes(MIB))


def build_clips(root: Path) -> None:
    """Many parcels, and every one is small."""
    build_small(root, files=10)
    for number in range(100):
        (root / f"clip{number:03}").write_bytes(os.urandom(30_000))


def launch(stage: Stage, tmp_path: Path, workers: int = 3, deed: str = "", **order: object) -> Job:
    """A job that lasts some seconds, and workers that may help with it."""
    failpoint = f"helping:{deed}" if deed else ""
    job = stage.launch(
        "day1", build, failpoint=failpoint, **{"bandwidth_limit": 3 * MIB // 2, **order}
    )
    gate = str(tmp_path / "gate")
    stage.crew.start(workers, IMPATIENT, KETTER_SPREAD_BYTES=1, KETTER_FAULTS_GATE=gate)
    return job


def helpers(job: Job) -> set[str]:
    """The workers that carry a parcel of the job at this moment."""
    taken = ParcelLease.objects.filter(job=job, state=LeaseState.TAKEN)
    return set(taken.values_list("worker", flat=True))


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_free_workers_carry_parcels_of_a_large_job(stage: Stage, tmp_path: Path, mode: str) -> None:
    job = launch(stage, tmp_path, mode=mode)
    seen: set[str] = set()

    def ended() -> bool:
        seen.update(helpers(job))
        return in_state(job, Status.DONE)()

    stage.watch(ended)

    stage.oracles[job].judge(job)
    assert (job.attempt, codes(job).count("HELPER_JOINED")) == (1, 2)
    assert len(seen) == 2
    assert job.worker not in seen
    assert "HELPER_LOST" not in codes(job)
    assert not ParcelLease.objects.exists()


def test_a_job_below_the_size_limit_gets_no_helper(stage: Stage, tmp_path: Path) -> None:
    job = stage.launch("day1", build, bandwidth_limit=2 * MIB)
    stage.crew.start(3, KETTER_SPREAD_BYTES=64 * MIB)

    stage.wait()

    stage.oracles[job].judge(job)
    assert "HELPER_JOINED" not in codes(job)


@pytest.mark.parametrize(
    ("mode", "deed"),
    [
        ("copy", "worker"), ("move", "receiver"), ("copy", "end"),
        nightly("move", "worker"), nightly("copy", "sender"), nightly("copy", "sshd"),
    ],
)  # fmt: skip
def test_a_helper_that_dies_amid_a_parcel_costs_nothing_but_time(
    stage: Stage, tmp_path: Path, mode: str, deed: str
) -> None:
    job = launch(stage, tmp_path, deed=deed, mode=mode)

    stage.wait()

    stage.oracles[job].judge(job)
    # Told to end, it may just have brought its parcel.
    assert codes(job).count("HELPER_LOST") == 1 or deed == "end"
    # An sshd that dies may have carried the lender's connection as well.
    assert job.attempt == 1 or deed == "sshd"


def test_a_helper_that_freezes_is_shut_out_and_changes_nothing_later(
    stage: Stage, tmp_path: Path
) -> None:
    job = launch(stage, tmp_path, deed="freeze")
    frozen: set[int] = set()

    def ended() -> bool:
        frozen.update(stopped(stage))
        return in_state(job, Status.DONE)()

    stage.watch(ended)

    assert (len(frozen), codes(job).count("HELPER_LOST")) == (2, 1)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    stage.watch(lambda: not stopped(stage))
    stage.oracles[job].judge(job)
    assert job.attempt == 1


def test_a_helper_whose_agents_freeze_too_ends_the_attempt_and_not_the_job(
    stage: Stage, tmp_path: Path
) -> None:
    job = launch(stage, tmp_path, deed="freeze_all")
    frozen: set[int] = set()

    def ended() -> bool:
        frozen.update(stopped(stage))
        return in_state(job, Status.DONE)()

    stage.watch(ended, 90)

    assert len(frozen) >= 3
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    stage.watch(lambda: not stopped(stage))
    stage.oracles[job].judge(job)
    assert job.attempt == 2
    assert "TARGET_BUSY" in codes(job)


@pytest.mark.parametrize("mode", [nightly("copy"), "move"])
def test_a_job_is_retried_when_the_worker_that_lends_its_parcels_dies(
    stage: Stage, tmp_path: Path, mode: str
) -> None:
    job = launch(stage, tmp_path, mode=mode)
    stage.watch(lambda: helpers(job))

    kill_with_horse(stage, worker_of(job))

    stage.wait()
    stage.oracles[job].judge(job)
    assert (job.attempt, codes(job).count("WORKER_LOST")) == (2, 1)


@pytest.mark.parametrize("deed", ["", "worker"])
def test_several_workers_carry_the_slices_of_one_file(
    make_stage: MakeStage, sshd: Sshd, tmp_path: Path, deed: str
) -> None:
    with Relay(sshd.host, sshd.port) as line:
        line.rate = MIB // 2
        stage = make_stage(sshd, line.port)
        failpoint = f"helping:{deed}" if deed else ""
        job = stage.launch(
            "tape", lambda root: build_large(root / "tape.mov", 16 * MIB), failpoint=failpoint
        )
        gate = str(tmp_path / "gate")
        stage.crew.start(3, SLICED, KETTER_SPREAD_BYTES=1, KETTER_FAULTS_GATE=gate)
        stage.watch(lambda: "HELPER_JOINED" in codes(job))
        line.rate = 3 * MIB

        stage.wait()

        stage.oracles[job].judge(job)
        assert job.plan["parcels"].keys() == {"range"}
        assert job.attempt == 1
        assert codes(job).count("HELPER_LOST") == bool(deed)


@pytest.mark.parametrize("workers", [nightly(1), 3])
def test_a_file_too_large_for_one_loan_travels_in_slices_where_workers_are_free(
    stage: Stage, workers: int
) -> None:
    stage.crew.start(workers, IMPATIENT, KETTER_SPREAD_BYTES=1)
    stage.watch(lambda: idle_workers() == workers)

    job = stage.launch(
        "tape",
        lambda root: build_large(root / "tape.mov", 8 * MIB),
        bandwidth_limit=MIB,
    )

    stage.wait()
    stage.oracles[job].judge(job)
    assert job.plan["parcels"].keys() == {"range" if workers > 1 else "file"}
    assert job.plan["streams"] == 1
    assert codes(job).count("HELPER_JOINED") == workers - 1


def test_cancelling_a_job_with_helpers_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    job = launch(stage, tmp_path)
    stage.watch(lambda: helpers(job))

    job_cancel(Job.objects.get(pk=job.pk), by=stage.by)

    stage.watch(in_state(job, Status.CANCELLED), 10)
    stage.oracles[job].judge(job, status=Status.CANCELLED)


def test_a_paused_job_with_helpers_resumes_from_what_has_arrived(
    stage: Stage, tmp_path: Path
) -> None:
    job = launch(stage, tmp_path)
    stage.watch(lambda: helpers(job))

    job_pause(Job.objects.get(pk=job.pk), by=stage.by)
    stage.watch(in_state(job, Status.PAUSED), 10)
    job_resume(Job.objects.get(pk=job.pk), by=stage.by)

    stage.wait()
    stage.oracles[job].judge(job)
    assert job.attempt == 2
    assert job.plan["bytes_resumed"] > 0


def test_a_free_worker_takes_a_waiting_job_before_it_helps_another(
    stage: Stage, tmp_path: Path
) -> None:
    job = stage.launch("day1", build_clips, bandwidth_limit=MIB // 2)
    stage.crew.start(2, KETTER_SPREAD_BYTES=1)
    stage.watch(lambda: helpers(job))

    second = stage.launch("day2", build_small)

    stage.wait(second)
    assert in_state(job, Status.RUNNING)()
    stage.wait(job)
    for each in (job, second):
        stage.oracles[each].judge(each)


def stopped(stage: Stage) -> set[int]:
    """The processes of the crew, and the agents, that stand still."""
    return {pid for pid in marked_by(stage) if state_of(pid) == "T"}


def marked_by(stage: Stage) -> set[int]:
    """All processes that the crew has started, here and behind the sshd."""
    ours = {below for top in stage.crew.workers() for below in (top, *descendants(top))}
    return ours.union(stage.sshd.sessions())


def state_of(pid: int) -> str:
    """A process's state as the kernel says it, in one letter."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""
