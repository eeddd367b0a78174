"""Sources that change, vanish, refuse, or lead elsewhere while a job reads them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.states import Status
from tests.faults.here import Here, failures
from tests.faults.spoiling import CLIP, REFUSING, rewrite
from tests.rig.planted_code import Plant
from tests.rig.trees import build_small

pytestmark = pytest.mark.django_db


def grow(path: Path) -> None:
    """Append a byte."""
    with path.open("ab") as file:
        file.write(b"!")


def shrink(path: Path) -> None:
    """Cut it off."""
    os.truncate(path, 1)


@pytest.mark.fault(19)
@pytest.mark.parametrize("strategy", ["zip", "files"])
@pytest.mark.parametrize("change", [grow, shrink, rewrite])
def test_a_move_leaves_a_file_that_changes_while_it_is_read(
    here: Here, change: Callable[[Path], None], strategy: str
) -> None:
    """Fault 19: file grows or changes while read."""
    build_small(here.source, 40)
    (here.source / CLIP).write_bytes(b"frames")
    changed = here.source / CLIP

    job = here.run(at="transfer", meddle=lambda: change(changed), mode="move", strategy=strategy)

    assert (job.status, failures(job)) == (Status.PARTIAL, {CLIP: "SOURCE_CHANGED"})
    assert (job.files_done, job.files_failed) == (39, 1)
    assert changed.exists()
    assert not (here.target / CLIP).exists()
    again = here.run(mode="move")
    assert (again.status, (here.target / CLIP).exists()) == (Status.DONE, True)


@pytest.mark.fault(20)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_job_is_partial_when_a_file_vanishes_before_it_is_read(here: Here, mode: str) -> None:
    """Fault 20: file vanishes between scan and read."""
    build_small(here.source, 40)

    job = here.run(at="transfer", meddle=(here.source / CLIP).unlink, mode=mode)

    assert (job.status, failures(job)) == (Status.PARTIAL, {CLIP: "VANISHED"})
    assert (job.files_done, job.files_failed) == (39, 1)
    assert len(list(here.target.rglob("*.dpx"))) == 39
    assert len(list(here.source.rglob("*.dpx"))) == (39 if mode == "copy" else 0)


@pytest.mark.fault(20)
def test_a_copy_is_partial_when_its_whole_source_vanishes_before_it_is_read(here: Here) -> None:
    """Fault 20: file vanishes between scan and read."""
    build_small(here.source, 40)

    job = here.run(at="transfer", meddle=lambda: shutil.rmtree(here.source))

    assert (job.status, job.files_done) == (Status.PARTIAL, 0)
    assert set(failures(job).values()) == {"VANISHED"}
    here.oracles[job].no_debris()
    here.oracles[job].trail_ends_once(job)


@pytest.mark.fault(21)
@pytest.mark.parametrize("mode", ["copy", "move"])
@pytest.mark.parametrize("strategy", ["zip", "files"])
def test_a_job_delivers_all_files_but_the_one_that_it_may_not_read(
    here: Here, plant: Plant, mode: str, strategy: str
) -> None:
    """Fault 21: permission denied on one of many."""
    build_small(here.source, 2000)
    plant(REFUSING)

    job = here.run(mode=mode, strategy=strategy)

    assert failures(job) == {CLIP: "PERMISSION_DENIED"}
    assert (job.files_done, job.files_failed) == (1999, 1)
    if mode == "copy":
        here.judge(job, status=Status.PARTIAL, missing={CLIP.encode()})
    assert (here.source / CLIP).exists()
    assert len(list(here.source.rglob("*.dpx"))) == (2000 if mode == "copy" else 1)
    assert CLIP in job.error_message


@pytest.mark.fault(22)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_symlinks_that_lead_out_of_the_root_or_in_circles_arrive_as_symlinks(
    here: Here, tmp_path: Path, mode: str
) -> None:
    """Fault 22: symlink in source pointing outside root, or a loop."""
    build_small(here.source, 20)
    (here.source / "out").symlink_to(tmp_path / "canary")
    (here.source / "out-file").symlink_to(tmp_path / "canary/file")
    (here.source / "up").symlink_to("..")
    (here.source / "loop").symlink_to("loop")
    (here.source / "reel_00/self").symlink_to(".")

    job = here.run(mode=mode)

    here.judge(job)
    assert os.readlink(here.target / "out") == str(tmp_path / "canary")
    assert not list(here.target.rglob("bystander"))
