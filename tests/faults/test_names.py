"""Names and entries that are hard to carry, and a target that cannot hold some of them."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from jobs.states import Status
from tests.faults.here import Here, failures
from tests.rig.facts import assert_same, describe
from tests.rig.planted_code import SHORT_NAMES, Plant
from tests.rig.trees import MTIME, build_mixed, build_small

pytestmark = pytest.mark.django_db

LONG = "n" * 200


@pytest.mark.fault(25)
@pytest.mark.parametrize("strategy", ["zip", "files"])
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_odd_file_names_arrive_byte_for_byte(here: Here, mode: str, strategy: str) -> None:
    """Fault 25: newline, tab, invalid UTF-8, leading dash, quotes in names."""
    build_mixed(here.source, 1 << 20)

    job = here.run(mode=mode, strategy=strategy)

    here.judge(job)
    assert b"not utf-8 \xff\xfe.raw" in here.oracles[job].trees()[1]


@pytest.mark.fault(25)
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_partial_job_reports_the_file_whose_name_the_target_refuses(
    here: Here, plant: Plant, mode: str
) -> None:
    """Fault 25: newline, tab, invalid UTF-8, leading dash, quotes in names."""
    build_small(here.source, 20)
    (here.source / "new\nline").write_bytes(b"frames")
    plant(
        SHORT_NAMES.replace('"/b" in', '"/srvtrf" in').replace("len(name) > 100", r'"\n" in name')
    )

    job = here.run(mode=mode)

    assert (job.status, job.files_done) == (Status.PARTIAL, 20)
    assert list(failures(job)) == [r"new\nline"]
    assert (here.source / "new\nline").exists()
    assert not here.target.joinpath("new\nline").exists()


@pytest.mark.fault(26)
def test_a_copy_carries_a_name_of_255_bytes_and_a_path_of_over_4096_bytes(here: Here) -> None:
    """Fault 26: 255-byte name, path over 4096."""
    here.source.mkdir()
    (here.source / ("e" * 255)).write_bytes(b"frames")
    folder = os.open(here.source, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(LONG, dir_fd=folder)
        below = os.open(LONG, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("clip", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    before = describe(here.source)
    assert max(map(len, before)) > 4096
    job = here.run_without_oracle()

    assert job.status == Status.DONE, job.error_message
    assert_same(before, describe(here.target))
    for root in (here.source, here.target):  # Python's own removal does not get so deep.
        subprocess.run(["rm", "-rf", str(root)], check=True)


@pytest.mark.fault(29)
@pytest.mark.parametrize("strategy", ["zip", "files"])
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_sparse_empty_and_oddly_dated_files_arrive_unchanged(
    here: Here, mode: str, strategy: str
) -> None:
    """Fault 29: sparse, empty, over 4 GiB, over 65,535 files, empty folders, odd times."""
    build_mixed(here.source, 1 << 20)
    with (here.source / "sparse").open("wb") as file:
        file.truncate(200 << 20)
        file.write(b"frames")
    for number, when in enumerate((-86_400, 0, 315_532_799, 4_354_819_200)):
        path = here.source / f"time{number}"
        path.write_bytes(b"")
        os.utime(path, ns=(MTIME, when * 1_000_000_000 + 7))

    job = here.run(mode=mode, strategy=strategy)

    here.judge(job)
    assert (here.target / "sparse").stat().st_blocks * 512 < 20 << 20


@pytest.mark.xdist_group("large")
@pytest.mark.slow
@pytest.mark.fault(29)
def test_an_archive_job_packs_more_files_and_bytes_than_a_plain_zip_can_hold(here: Here) -> None:
    """Fault 29: sparse, empty, over 4 GiB, over 65,535 files, empty folders, odd times."""
    here.source.mkdir()
    for number in range(65_600):
        os.close(os.open(here.source / str(number), os.O_CREAT | os.O_WRONLY))
    with (here.source / "large").open("wb") as file:
        file.truncate((4 << 30) + 1)

    job = here.run_without_oracle(strategy="archive")

    assert (job.status, job.files_done) == (Status.DONE, 65_601), job.error_message
    (archive,) = here.target.iterdir()
    names = subprocess.run(
        ["unzip", "-Z1", str(archive)], capture_output=True, check=True, text=True
    )
    assert sorted(names.stdout.splitlines()) == sorted(os.listdir(here.source))
    with zipfile.ZipFile(archive) as opened:
        sizes = Counter(member.file_size for member in opened.infolist())
    assert sizes == {0: 65_600, (4 << 30) + 1: 1}
    archive.unlink()


@pytest.mark.xdist_group("large")
@pytest.mark.slow
@pytest.mark.fault(29)
def test_a_zip_job_carries_a_file_over_4_gib_and_a_folder_of_over_65535_files(here: Here) -> None:
    """Fault 29: sparse, empty, over 4 GiB, over 65,535 files, empty folders, odd times."""
    here.source.mkdir()
    for number in range(65_600):
        os.close(os.open(here.source / str(number), os.O_CREAT | os.O_WRONLY))
    with (here.source / "large").open("wb") as file:
        file.write(b"begins")
        file.seek(4 << 30)
        file.write(b"!")
    os.utime(here.source / "large", ns=(MTIME, MTIME))

    job = here.run_without_oracle(strategy="zip")

    assert (job.status, job.files_done) == (Status.DONE, 65_601), job.error_message
    assert set(os.listdir(here.target)) == set(os.listdir(here.source))
    large: Path = here.target / "large"
    with large.open("rb") as file:
        assert file.read(7) == b"begins\0"
        file.seek((4 << 30) - 1)
        assert file.read() == b"\0!"
    found = large.stat()
    assert (found.st_mtime_ns, found.st_blocks * 512 < 1 << 30) == (MTIME, True)
