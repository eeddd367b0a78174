"""A worker told to end at any boundary of a job ends in time, and another goes on with the job."""

from __future__ import annotations

import re

import pytest

from jobs.models import Job
from tests.faults.crew import Crew, Stage, worker_of
from tests.faults.kill_cases import WAYS, WORKERS, build, build_with_large, cases, verdict
from tests.faults.killpoints import ENDED, FINISH, TOLD
from tests.rig.events import codes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: What is promised, in seconds.
IN_TIME = 10.0
#: Only a job that was handed back goes on in time: no lease runs out.
LEASE = 300


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way == "zip" else pytest.mark.nightly) for way in WAYS]
)
def test_a_worker_that_gets_sigterm_at_any_point_ends_in_time_and_loses_no_job(
    stage: Stage, way: str
) -> None:
    """Nothing is lost, and no lease waited for; what is done but for its end just ends."""
    strategy, streams = WAYS[way]
    jobs: dict[tuple[str, str], Job] = {}
    for mode, point in cases("worker"):
        jobs[mode, point] = stage.launch(
            f"{mode}-{point}",
            build_with_large if way == "range" else build,
            failpoint=f"{point}:end",
            mode=mode,
            strategy=strategy,
            streams=streams,
        )
    stage.crew.start(WORKERS, KETTER_LEASE_SECONDS=LEASE)

    stage.wait(seconds=120)

    stage.watch(lambda: told(stage.crew).keys() <= ended(stage.crew).keys(), seconds=IN_TIME)
    problems = [f"{case}: {why}" for case, job in jobs.items() if (why := verdict(stage, job))]
    assert not problems, "\n".join(problems)
    last = ended(stage.crew)
    whose = {place: (pid, last[pid] - at) for pid, (at, place) in told(stage.crew).items()}
    for (mode, point), job in jobs.items():
        worker, seconds = whose[job.target_path]
        assert seconds < IN_TIME, f"{mode}, told at {point}: it took the worker {seconds:.1f} s"
        if has_a_checkpoint_after(mode, point):
            wanted = ["CREATED", "STARTED", "HANDED_BACK", "STARTED", "DONE"]
        else:
            wanted = ["CREATED", "STARTED", "DONE"]
        assert codes(job) == wanted, f"{mode}, told at {point}"
        assert (worker_of(job) == worker) == (len(wanted) == 3), f"{mode}, told at {point}"


def has_a_checkpoint_after(mode: str, point: str) -> bool:
    """Whether a job can still stop there: after its last question to an agent it can only end."""
    return point != FINISH and (mode, point) != ("copy", "cleanup")


def told(crew: Crew) -> dict[int, tuple[float, str]]:
    """Who was told to end: when, and the target of the job that it had."""
    found = re.findall(rf"^{TOLD} (\d+) at ([\d.]+) in (.+)$", said(crew), re.MULTILINE)
    return {int(pid): (float(at), place) for pid, at, place in found}


def ended(crew: Crew) -> dict[int, float]:
    """When each worker ended that has."""
    found = re.findall(rf"^{ENDED} (\d+) at ([\d.]+)$", said(crew), re.MULTILINE)
    return {int(pid): float(at) for pid, at in found}


def said(crew: Crew) -> str:
    """All that the workers have said."""
    return crew.log.read_text("utf-8", "replace")
