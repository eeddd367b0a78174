"""The jobs that are struck at each point: their trees, their ways, and how they have to end."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.models import Job
from tests.faults.crew import Stage
from tests.faults.killpoints import FINISH, POINTS
from tests.rig.trees import MTIME, build_small

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
