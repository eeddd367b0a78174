"""kill -9 of each process at each boundary of a job, by way of travel; afterwards nothing is lost.

One oracle judges each: both trees, debris, processes, the trail, the one end.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.models import Job
from tests.faults.crew import Stage
from tests.faults.killpoints import FINISH, POINTS, VICTIMS
from tests.rig.trees import MTIME, build_small

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

#: The way of travel: the strategy, and how many streams.
WAYS = {"zip": ("zip", 1), "file": ("files", 1), "range": ("auto", 2)}
WORKERS = 4


def build(root: Path) -> None:
    """A few parcels of small files, and what is easily lost beside them."""
    build_small(root, 30)
    (root / ".hidden").write_bytes(b"hidden")
    (root / "empty" / "emptier").mkdir(parents=True)
    (root / "link").symlink_to("reel_00")
    (root / "empty" / "emptier").chmod(0o700)
    for folder in ("empty/emptier", "empty", "reel_00"):
        os.utime(root / folder, ns=(MTIME, MTIME + 1))
    root.chmod(0o751)
    os.utime(root, ns=(MTIME, MTIME))


def build_with_large(root: Path) -> None:
    """The same, and a file that travels in slices."""
    build(root)
    (root / "large.mov").write_bytes(os.urandom((1 << 20) + 17))
    os.utime(root, ns=(MTIME, MTIME))


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("way", WAYS)
def test_whoever_is_killed_and_wherever_it_ends_as_if_nothing_had_happened(
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


def cases(victim: str) -> list[tuple[str, str]]:
    """The mode and the point of each job whose victim that is."""
    points = [*POINTS, *([FINISH] if victim == "worker" else [])]
    return [
        (mode, point)
        for mode in ("copy", "move")
        for point in points
        if mode == "move" or point != "remove_source"
    ]


def verdict(stage: Stage, job: Job) -> str:
    """What the oracle has against how a job ended; nothing if all is well."""
    try:
        stage.oracles[job].judge(job)
    except AssertionError as error:
        return "\n".join([str(error), *getattr(error, "__notes__", ())])
    return ""
