"""What is compared, and what Ketter has set itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: Seconds there and back along the far line.
ROUND_TRIP = 0.05


class Way(Enum):
    """Where the target lies."""

    LOCAL = "on this machine"
    NEAR = "over SSH, loopback"
    FAR = "over SSH, 50 ms round trip"


@dataclass(frozen=True)
class Goal:
    """Ketter's wall time is to be at most so many times that of the best of these peers."""

    limit: float
    peers: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One transfer that every tool does; `about` tells it at scale 1."""

    name: str
    about: str
    data: str
    way: Way
    peers: tuple[str, ...]
    goals: tuple[Goal, ...]
    again: bool = False


_ALL = ("tar", "rsync", "scp", "mscp", "rclone")

CASES = {
    case.name: case
    for case in (
        Case(
            "small",
            "10,000 files of 0.5 to 16 KiB",
            "small",
            Way.NEAR,
            _ALL,
            (Goal(1.0, ("tar",)), Goal(0.8, ("rsync",)), Goal(0.25, ("mscp",))),
        ),
        Case(
            "large",
            "one file of 2 GiB",
            "large",
            Way.NEAR,
            _ALL,
            (Goal(1.05, ("scp", "mscp", "rsync")),),
        ),
        Case(
            "large_far", "one file of 256 MiB", "middle", Way.FAR, _ALL, (Goal(0.35, ("rsync",)),)
        ),
        Case(
            "small_far",
            "10,000 files of 0.5 to 16 KiB",
            "small",
            Way.FAR,
            _ALL,
            (Goal(0.5, ("rsync",)),),
        ),
        Case(
            "session",
            "300 files of 1 to 8 MiB, 5,000 tiny ones and a hidden one",
            "session",
            Way.NEAR,
            _ALL,
            (Goal(0.9, ("rsync",)),),
        ),
        Case(
            "again",
            "10,000 small files that are there already, nothing re-sent",
            "small",
            Way.NEAR,
            ("rsync", "rclone"),
            (Goal(1.2, ("rsync",)),),
            again=True,
        ),
        Case(
            "local_small",
            "10,000 files of 0.5 to 16 KiB",
            "small",
            Way.LOCAL,
            ("cp",),
            (Goal(1.5, ("cp",)),),
        ),
        Case(
            "local_large", "one file of 2 GiB", "large", Way.LOCAL, ("cp",), (Goal(1.1, ("cp",)),)
        ),
        Case("start", "one file of 1 byte", "byte", Way.NEAR, _ALL, (Goal(1.5, ("scp",)),)),
    )
}

#: So slow that once must do: they run in the first round only.
ONCE = {
    ("small", "scp"),
    ("small", "rclone"),
    ("small_far", "scp"),
    ("small_far", "mscp"),
    ("small_far", "rclone"),
    ("session", "scp"),
    ("session", "rclone"),
}
