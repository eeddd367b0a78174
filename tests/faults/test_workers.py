"""Workers that are killed, told to end, frozen, or told a job twice; clocks that are wrong."""

from __future__ import annotations

import os
import signal

import pytest
from django_rq import get_queue

from jobs.models import Job
from jobs.queueing.notify import notify
from jobs.services import job_cancel
from jobs.states import Status
from tests.faults.crew import MARKED, Stage, kill_with_horse, worker_of
from tests.faults.oracle import debris
from tests.rig.events import codes
from tests.rig.interrupted import MIB, build_large, staged
from tests.rig.lanes import nightly
from tests.rig.trees import build_small, spoil

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.fault(1)
def test_another_worker_resumes_a_large_file_after_the_first_one_is_killed(stage: Stage) -> None:
    """Fault 1: worker SIGKILL mid large file."""
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 12 * MIB), bandwidth_limit=6 * MIB
    )
    target = stage.oracles[job].target
    stage.crew.start(2, MARKED)
    stage.watch(lambda: staged(target) >= 6 * MIB)

    kill_with_horse(stage, worker_of(job))

    assert not (target / "large.mov").exists()
    stage.wait()
    stage.oracles[job].judge(job)
    assert (job.attempt, codes(job).count("WORKER_LOST")) == (2, 1)
    assert job.plan["bytes_resumed"] >= 4 * MIB


@pytest.mark.fault(2)
@pytest.mark.parametrize("back", [False, True], ids=["packing", "unpacking"])
def test_a_zip_job_can_finish_or_be_cancelled_after_its_worker_is_killed(
    stage: Stage, back: bool
) -> None:
    """Fault 2: worker SIGKILL while packing or unpacking."""
    jobs = [
        stage.launch(name, build_small, back=back, strategy="zip", failpoint="verify:worker")
        for name in ("finished", "given-up")
    ]
    stage.crew.start(1, KETTER_LEASE_SECONDS=4)
    stage.watch(lambda: any("WORKER_LOST" in codes(job) for job in jobs))
    roots = stage.surroundings.roots
    assert any(debris(root) for root in roots)

    job_cancel(jobs[1], by=stage.by)

    stage.wait()
    stage.oracles[jobs[0]].judge(jobs[0])
    stage.oracles[jobs[1]].judge(jobs[1], status=Status.CANCELLED)


@pytest.mark.fault(3)
def test_a_retry_skips_all_files_that_the_killed_attempt_published(stage: Stage) -> None:
    """Fault 3: SIGKILL between rename and database commit."""
    job = stage.launch("day1", build_small, failpoint="finish:worker")
    target = stage.oracles[job].target
    stage.crew.start(1)
    stage.watch(lambda: target.exists() and (target / "reel_00").exists())
    published = {path: path.stat().st_ino for path in target.rglob("*.dpx")}

    stage.wait()

    stage.oracles[job].judge(job)
    assert {path: path.stat().st_ino for path in target.rglob("*.dpx")} == published
    assert (job.attempt, job.files_skipped, job.files_done) == (2, 200, 0)


@pytest.mark.fault(4)
@pytest.mark.parametrize("spoilt", [False, True])
def test_a_retried_move_removes_its_source_only_if_the_copy_is_still_intact(
    stage: Stage, spoilt: bool
) -> None:
    """Fault 4: SIGKILL between verify and source delete (move)."""
    job = stage.launch("day1", build_small, mode="move", failpoint="remove_source:worker")
    oracle = stage.oracles[job]
    before = oracle.before.copy()
    stage.crew.start(1, KETTER_LEASE_SECONDS=5)
    stage.watch(lambda: (oracle.target / "reel_00").exists() and not debris(oracle.target))
    if not spoilt:
        stage.wait()
        oracle.judge(job)
        return

    rotten = next(path for path in oracle.target.rglob("*.dpx") if path.stat().st_size)
    spoil(rotten)
    stage.oracles.clear()  # What is at the target is not what was sent: so it must be.
    stage.watch(lambda: not Job.objects.get(pk=job.pk).is_live)

    job.refresh_from_db()
    path = os.fsencode(rotten.relative_to(oracle.target))
    assert (job.status, job.error_code) == (Status.FAILED, "TARGET_EXISTS")
    assert oracle.source.joinpath(os.fsdecode(path)).exists()
    assert oracle.trees()[0] == before


@pytest.mark.fault(5)
def test_a_worker_hands_its_job_back_on_sigterm_and_the_job_resumes(stage: Stage) -> None:
    """Fault 5: SIGTERM, as in a deployment."""
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 12 * MIB), bandwidth_limit=6 * MIB
    )
    stage.crew.start(1, MARKED, KETTER_LEASE_SECONDS=300)
    stage.watch(lambda: staged(stage.oracles[job].target) >= 4 * MIB)
    worker = worker_of(job)

    os.kill(worker, signal.SIGTERM)

    stage.watch(lambda: worker not in stage.crew.workers(), seconds=10)
    stage.wait()
    stage.oracles[job].judge(job)
    assert codes(job)[1:5] == ["STARTED", "HANDED_BACK", "STARTED", "DONE"]
    assert job.plan["bytes_resumed"] >= 2 * MIB


@pytest.mark.fault(8)
def test_a_job_that_is_queued_several_times_runs_once(stage: Stage) -> None:
    """Fault 8: same job delivered twice by RQ."""
    job = stage.launch("day1", build_small)
    for _ in range(4):
        notify(job.pk)
    stage.crew.start(3)

    stage.wait()

    stage.watch(lambda: not get_queue().job_ids)
    stage.oracles[job].judge(job)
    assert codes(job) == ["CREATED", "STARTED", "DONE"]


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    "point", ["transfer", nightly("publish"), "remove_source", nightly("finish")]
)
def test_a_frozen_worker_that_wakes_up_after_the_takeover_changes_nothing(
    stage: Stage, point: str
) -> None:
    """Fault 9: zombie worker returns after takeover."""
    job = stage.launch("day1", build_small, mode="move", failpoint=f"{point}:freeze")
    oracle = stage.oracles[job]
    stage.crew.start(2)
    stage.watch(lambda: Job.objects.filter(pk=job.pk, attempt=1).exists())
    worker = worker_of(job)
    horses = stage.crew.horses(worker)
    stage.wait()
    after = (oracle.trees(), codes(job), Job.objects.filter(pk=job.pk).values().get())
    assert after[1].count("STARTED") == 2

    for pid in (*horses, worker):
        os.kill(pid, signal.SIGCONT)

    stage.watch(lambda: not oracle.leftovers())
    oracle.judge(job)
    assert (oracle.trees(), codes(job), Job.objects.filter(pk=job.pk).values().get()) == after


@pytest.mark.fault(30)
@pytest.mark.parametrize("skew", [-86400, nightly(86400)])
def test_a_job_is_done_in_one_attempt_by_workers_whose_clock_is_a_day_wrong(
    stage: Stage, skew: int
) -> None:
    """Fault 30: clock skew or clock stepped backwards."""
    job = stage.launch(
        "large", lambda root: build_large(root / "large.mov", 12 * MIB), bandwidth_limit=3 * MIB
    )
    stage.crew.start(2, {**MARKED, "clock": skew})

    stage.wait()

    stage.oracles[job].judge(job)
    assert codes(job) == ["CREATED", "STARTED", "DONE"]
