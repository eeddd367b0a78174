"""A folder that was given the name of a staging folder: it is not taken for one, nor removed.

Where others may write to the target folder they can rename what is ours there: what a transfer
has delivered, another transfer's staging folder, anything.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import engine
from engine import Mode, Request
from tests.rig.interrupted import staged, staging
from tests.rig.observers import Stop
from tests.rig.transfers import Run, endpoint

NAME = ".ketter-test.part"
FILES, SIZE = 60, 256 << 10
#: ns since 1970: the same in both trees, as an attacker sees to it.
MTIME = 1_600_000_000_000_000_000


def build(root: Path, letter: str) -> None:
    """Files of the same names, sizes and times, each filled with one letter."""
    root.mkdir()
    for number in range(FILES):
        file = root / f"{number:03}.dpx"
        file.write_bytes(letter.encode() * SIZE)
        os.utime(file, ns=(MTIME, MTIME + number))


def content(root: Path) -> set[bytes]:
    return {file.read_bytes()[:1] for file in root.iterdir() if file.is_file()}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A genuine source and a forged one."""
    build(tmp_path / "a", "G")
    build(tmp_path / "forged", "F")
    return tmp_path


def leave(two: Path, run: Run, **options: object) -> Path:
    """Have a third attempt, whose parcels are small, leave forged files; the staging folder."""
    stop = Stop(lambda: staged(two / "b") > FILES * SIZE * 3 // 4)
    with pytest.raises(engine.Interrupted):
        run(stop, source=endpoint(two / "forged"), attempt=3, bwlimit=12_000_000, **options)
    (folder,) = staging(two / "b")
    return folder


@pytest.mark.parametrize("mode", Mode)
def test_a_renamed_staging_folder_of_another_transfer_is_not_resumed(
    two: Path, run: Run, mode: Mode
) -> None:
    leave(two, run, transfer_id="other").rename(two / "b" / NAME)

    with pytest.raises(engine.StagingNotOurs, match="given this name"):
        run(resume=True, attempt=4, mode=mode)

    assert staged(two / "b") > 0
    assert content(two / "a") == {b"G"}


@pytest.mark.parametrize(
    ("bits", "mode"),
    [*((None, mode) for mode in Mode), (0o700, Mode.COPY), (0o1755, Mode.COPY), (0o755, Mode.COPY)],
)
def test_a_folder_without_the_staging_mark_or_with_another_mode_of_it_is_not_resumed(
    two: Path, run: Run, bits: int | None, mode: Mode
) -> None:
    """It may hold all that a staging folder holds, but the mark: no transfer delivers that name."""
    folder = leave(two, run)
    if bits is None:
        (folder / NAME).rmdir()
    else:
        (folder / NAME).chmod(bits)

    report = run(resume=True, attempt=4, mode=mode)

    assert report.files_resumed == 0
    assert content(two / "b") == {b"G"}
    assert not staging(two / "b")


@pytest.mark.parametrize("resume", [False, True])
def test_a_user_folder_renamed_to_the_staging_name_is_refused_and_stays(
    two: Path, run: Run, resume: bool
) -> None:
    secret = two / "b" / NAME
    (secret / "a1").mkdir(parents=True)
    (secret / "a1" / "precious").write_text("precious")
    secret.chmod(0o700)

    with pytest.raises(engine.StagingNotOurs, match="given this name"):
        run(resume=resume)
    request = Request(endpoint(two / "a"), endpoint(two / "b"), "test", 5)
    with pytest.raises(engine.StagingNotOurs, match="given this name"):
        engine.discard(request)

    assert (secret / "a1" / "precious").read_text() == "precious"
    assert os.listdir(two / "b") == [NAME]


def test_a_staging_folder_with_its_mark_is_resumed(two: Path, run: Run) -> None:
    leave(two, run)

    assert run(source=endpoint(two / "forged"), resume=True, attempt=4).files_resumed > 0

    assert content(two / "b") == {b"F"}
    assert not staging(two / "b")


def test_an_empty_staging_folder_of_a_run_that_died_is_used_again(two: Path, run: Run) -> None:
    (two / "b" / NAME).mkdir(parents=True, mode=0o700)
    (two / "b" / NAME).chmod(0o700)

    assert run(resume=True).files == FILES

    assert not staging(two / "b")
