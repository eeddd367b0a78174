"""Disks that have no room: for bytes, for inodes, before and during, at the target and beside."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.services import job_resume
from jobs.states import Status
from tests.faults.here import Here
from tests.faults.oracle import debris
from tests.rig.interrupted import MIB, build_large
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db

SmallDisk = Callable[..., Path]


def fill(disk: Path) -> Path:
    """Leave no byte free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (64 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


def on_disk(here: Here, disk: Path) -> None:
    """Have jobs bring their trees to that disk."""
    here.srvtrf.root_path = str(disk)
    here.srvtrf.save()


def build_3_mib(root: Path) -> None:
    """One file of that size."""
    build_large(root / "large.mov", 3 * MIB)


def build_100(root: Path) -> None:
    """So many small files."""
    build_small(root, 100)


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("options", "build", "patterns"),
    [
        (
            {"size": "1m"},
            build_3_mib,
            [
                r"has [\d,]+ bytes free, the transfer needs 3,145,728",
                "Make room at the target",
            ],
        ),
        (
            {"size": "8m", "nr_inodes": 40},
            build_100,
            [r"has \d+ inodes free, the transfer needs \d+"],
        ),
    ],
    ids=["bytes", "inodes"],
)
def test_a_job_needs_attention_when_the_target_has_too_few_free_bytes_or_inodes(
    here: Here,
    small_disk: SmallDisk,
    options: dict[str, Any],
    build: Callable[[Path], None],
    patterns: list[str],
) -> None:
    """Fault 16: disk full at the destination, before."""
    disk = small_disk("disk", **options)
    on_disk(here, disk)
    build(here.source)

    job = here.run()

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "NO_SPACE")
    for pattern in patterns:
        assert re.search(pattern, job.error_message)
    assert not {path.name for path in disk.rglob("*")} & {
        path.name for path in here.source.rglob("*")
    }


@pytest.mark.fault(17)
@pytest.mark.parametrize("strategy", ["zip", "files"])
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_job_can_be_resumed_after_the_target_runs_out_of_bytes_amid_a_transfer(
    here: Here, small_disk: SmallDisk, settings: Any, mode: str, strategy: str, keep: bool
) -> None:
    """Fault 17: disk full during."""
    settings.KETTER_KEEP_WHEN_FULL = keep
    disk = small_disk("disk", size="3m")
    on_disk(here, disk)
    build_small(here.source, 300)

    job = here.run(at="transfer", meddle=lambda: fill(disk), mode=mode, strategy=strategy)

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "NO_SPACE"), job.error_message
    assert "digest" not in job.error_message
    assert here.oracles[job].trees()[0] == here.oracles[job].before
    assert bool(debris(disk)) is keep
    (disk / "filler").unlink()
    job_resume(job, by=here.by)
    job = here.attempt(job)
    assert job.status == Status.DONE, job.error_message
    assert len(list(here.target.rglob("*.dpx"))) == 300
    assert not debris(disk)


@pytest.mark.fault(17)
def test_a_move_can_be_resumed_after_the_target_runs_out_of_inodes_amid_a_transfer(
    here: Here, small_disk: SmallDisk
) -> None:
    """Fault 17: disk full during."""
    disk = small_disk("disk", size="8m", nr_inodes=200)
    on_disk(here, disk)
    build_small(here.source, 100)

    def crowd() -> None:
        for number in range(200):
            try:
                (disk / f"other{number}").touch()
            except OSError:
                return

    job = here.run(at="transfer", meddle=crowd, mode="move")

    assert (job.status, job.error_code) == (Status.NEEDS_ATTENTION, "NO_SPACE"), job.error_message
    assert here.oracles[job].trees()[0] == here.oracles[job].before
    for path in disk.glob("other*"):
        path.unlink()
    job_resume(job, by=here.by)
    assert here.attempt(job).status == Status.DONE
    assert not debris(disk)


@pytest.mark.fault(18)
@pytest.mark.parametrize("strategy", ["zip", "archive"])
def test_a_zip_or_archive_job_needs_no_scratch_space(
    here: Here, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """Fault 18: scratch disk full on the packing side."""
    scratch = small_disk("scratch", size="64k")
    fill(scratch)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(scratch))
    build_small(here.source, 300)
    build_large(here.source / "large.mov", 3 * MIB)

    job = here.run(strategy=strategy)

    assert job.status == Status.DONE, job.error_message
    assert os.listdir(scratch) == ["filler"]
    if strategy == "zip":
        here.judge(job)
