"""kill -9 of each process at each boundary of a job, by way of travel; afterwards nothing is lost.

One oracle judges each: both trees, debris, processes, the trail, the one end.
"""

from __future__ import annotations

import pytest

from jobs.models import Job
from tests.faults.crew import Stage
from tests.faults.kill_cases import WAYS, WORKERS, build, build_with_large, cases, verdict
from tests.faults.killpoints import VICTIMS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: Each victim once, each way at least once; the other pairs are for the nightly lane.
IN_WHOLE = {("zip", "worker"), ("file", "sender"), ("range", "receiver"), ("zip", "sshd")}
PAIRS = [
    pytest.param(way, victim, marks=() if (way, victim) in IN_WHOLE else pytest.mark.nightly)
    for way in WAYS
    for victim in VICTIMS
]


@pytest.mark.parametrize(("way", "victim"), PAIRS)
def test_a_job_loses_nothing_whichever_process_is_killed_at_whichever_point(
    stage: Stage, way: str, victim: str
) -> None:
    strategy, streams = WAYS[way]
    jobs: dict[tuple[str, str], Job] = {}
    for mode, point in cases(victim):
        jobs[mode, point] = stage.launch(
            f"{mode}-{point}",
            build_with_large if way == "range" else build,
            back=victim == "sender" and mode == "move",
            failpoint=f"{point}:{victim}",
            mode=mode,
            strategy=strategy,
            streams=streams,
        )
    stage.crew.start(WORKERS)

    stage.wait(seconds=120)

    problems = [f"{case}: {why}" for case, job in jobs.items() if (why := verdict(stage, job))]
    assert not problems, "\n".join(problems)
    for (_, point), job in jobs.items():
        if point == "preflight":  # Later ones go on from what the first attempt brought.
            assert way in job.plan["parcels"]
        # Once all is published, an agent may die before it has anything left to do.
        if point not in ("cleanup", "remove_source") or victim == "worker":
            assert job.attempt > 1, f"nobody was killed at {point}"
