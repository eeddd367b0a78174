"""Gone on with: whose the staging folder is, and what of it is believed."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, Phase, SilentObserver, Verify
from tests.rig.interrupted import (
    LOST_OF_A_FILE,
    MIB,
    Held,
    build_large,
    build_many,
    staged,
    staging,
    whole,
)
from tests.rig.observers import Meddler, Stop
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees

SMALL, LARGE = 8 * MIB, 90 * MIB
#: Of the large file so much has arrived when it is interrupted.
ARRIVED = 60 * MIB
FAST = 80 * MIB
CLIP = "reel_0/0/00000.dpx"

pytestmark = pytest.mark.slow


@pytest.fixture
def half(tmp_path: Path, run: Run) -> Callable[..., None]:
    """Bring the small files and a part of the large one to the target, and no more."""
    build_many(tmp_path / "a", SMALL // (32 << 10))
    build_large(tmp_path / "a" / "z" / "large.mov", LARGE)

    def interrupt(**options: Any) -> None:
        due = Stop(lambda: staged(tmp_path / "b") >= SMALL + ARRIVED)
        with pytest.raises(engine.Interrupted) as caught:
            run(due, bwlimit=FAST, **options)
        assert caught.value.kept

    return interrupt


# -- whose it is ----------------------------------------------------------------


@pytest.mark.parametrize("attempts", [(1, 1), (1, 2), (3, 7)])
def test_a_resuming_attempt_keeps_the_files_that_an_earlier_one_staged(
    tmp_path: Path, run: Run, half: Callable[..., None], attempts: tuple[int, int]
) -> None:
    half(attempt=attempts[0])
    held = Held(tmp_path / "b")

    report = run(attempt=attempts[1], resume=True)

    assert report.bytes_resumed >= SMALL + ARRIVED - LOST_OF_A_FILE
    assert {CLIP, "z/large.mov"} <= held.kept(tmp_path / "b")
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_a_lower_attempt_cannot_resume_what_a_higher_one_staged(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half(attempt=2)
    before = staged(tmp_path / "b")

    with pytest.raises(engine.Replaced):
        run(attempt=1, resume=True)

    assert staged(tmp_path / "b") == before
    assert run(attempt=2, resume=True).bytes_resumed >= SMALL


class Paused(SilentObserver):
    """Waits where a phase begins until it is let go."""

    def __init__(self, where: Phase) -> None:
        self._where = where
        self.there, self.go = threading.Event(), threading.Event()

    def phase(self, phase: Phase) -> None:
        if phase is self._where:
            self.there.set()
            assert self.go.wait(60)


class Beside:
    """A transfer in a thread of its own."""

    def __init__(self, run: Run, observer: SilentObserver, **options: Any) -> None:
        self.error: BaseException | None = None

        def work() -> None:
            try:
                run(observer, **options)
            except BaseException as error:  # noqa: BLE001 - looked at by the test
                self.error = error

        self._thread = threading.Thread(target=work)
        self._thread.start()

    def end(self) -> BaseException | None:
        """What it was ended by."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.error


@pytest.mark.parametrize("mode", Mode)
def test_a_higher_attempt_ends_a_running_lower_one_and_resumes_what_it_proved(
    tmp_path: Path, run: Run, mode: Mode
) -> None:
    build_many(tmp_path / "a", 100)
    before = whole(tmp_path / "a")
    late = Paused(Phase.PUBLISH)
    lower = Beside(run, late, attempt=1, mode=Mode.MOVE)
    assert late.there.wait(30)  # All is staged and proven, and its agents hold their locks.
    held = Held(tmp_path / "b")

    report = run(attempt=2, resume=True, mode=mode)
    late.go.set()

    assert isinstance(lower.end(), engine.Replaced)
    assert (report.status, report.bytes_resumed) == ("done", report.bytes)
    assert len(held.kept(tmp_path / "b")) == 100
    assert_equal_trees(before, whole(tmp_path / "b"))
    assert (whole(tmp_path / "a") == before) is (mode is Mode.COPY)


def test_a_lower_attempt_does_not_publish_while_a_higher_one_is_under_way(
    tmp_path: Path, run: Run
) -> None:
    build_many(tmp_path / "a", 100)
    before = whole(tmp_path / "a")
    late, later = Paused(Phase.PUBLISH), Paused(Phase.PUBLISH)
    lower = Beside(run, late, attempt=1, mode=Mode.MOVE)
    assert late.there.wait(30)
    higher = Beside(run, later, attempt=2, mode=Mode.MOVE, resume=True)
    assert later.there.wait(30)

    late.go.set()

    assert isinstance(lower.end(), engine.Replaced)
    assert whole(tmp_path / "a") == before
    assert os.listdir(tmp_path / "b") == [staging(tmp_path / "b")[0].name]
    later.go.set()
    assert higher.end() is None
    assert_equal_trees(before, whole(tmp_path / "b"))


def test_a_second_run_with_resume_of_a_running_transfer_fails_with_target_busy(
    tmp_path: Path, run: Run
) -> None:
    build_many(tmp_path / "a", 100)
    late = Paused(Phase.PUBLISH)
    first = Beside(run, late)
    assert late.there.wait(30)

    with pytest.raises(engine.TargetBusy):
        run(resume=True)

    late.go.set()
    assert first.end() is None
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


# -- what is believed -------------------------------------------------------------


def flip(file: Path, at: int) -> None:
    """Invert a byte and keep the time."""
    found = file.stat()
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 0xFF]))
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def in_staging(root: Path, path: str) -> Path:
    (found,) = (root / "b").glob(f".ketter-*.part/a*/{path}")
    return found


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("streams", [1, 4])
def test_a_resumed_readback_sends_a_staged_file_with_a_flipped_byte_again(
    tmp_path: Path, run: Run, half: Callable[..., None], streams: int, mode: Mode
) -> None:
    half(verify=Verify.READBACK, streams=streams)
    before = whole(tmp_path / "a")
    flip(in_staging(tmp_path, CLIP), 100)
    held = Held(tmp_path / "b")

    report = run(resume=True, verify=Verify.READBACK, streams=streams, mode=mode)

    assert report.status == "done"
    assert_equal_trees(before, whole(tmp_path / "b"))
    kept = held.kept(tmp_path / "b")
    assert CLIP not in kept
    assert len(kept) == SMALL // (32 << 10)  # All the others, and the large one.
    assert report.files == SMALL // (32 << 10) + 2


SPOILS: dict[str, Callable[[Path], object]] = {
    "size": lambda file: os.truncate(file, (32 << 10) - 1),
    "time": lambda file: os.utime(file, ns=(5, 5)),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("what", SPOILS)
def test_a_staged_file_that_changed_or_vanished_is_sent_again_on_resume(
    tmp_path: Path, run: Run, half: Callable[..., None], what: str, verify: Verify
) -> None:
    half(verify=verify)
    held = Held(tmp_path / "b")
    SPOILS[what](in_staging(tmp_path, CLIP))

    report = run(resume=True, verify=verify)

    assert report.status == "done"
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert CLIP not in held.kept(tmp_path / "b")
    assert len(held.kept(tmp_path / "b")) == SMALL // (32 << 10)


@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("streams", [1, 4])
def test_a_flipped_byte_in_a_partial_large_file_is_found_at_every_verify_level(
    tmp_path: Path, run: Run, half: Callable[..., None], streams: int, verify: Verify
) -> None:
    half(verify=verify, streams=streams)
    flip(in_staging(tmp_path, "z/large.mov"), 5 * MIB)

    report = run(resume=True, verify=verify, streams=streams)

    assert report.status == "done"
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


@pytest.mark.parametrize("streams", [1, 4])
def test_a_truncated_partial_large_file_is_sent_again_on_resume(
    tmp_path: Path, run: Run, half: Callable[..., None], streams: int
) -> None:
    half(streams=streams)
    os.truncate(in_staging(tmp_path, "z/large.mov"), 1000)

    report = run(resume=True, streams=streams)

    assert (report.status, report.failures_total) == ("done", 0)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert SMALL <= report.bytes_resumed < 2 * SMALL


def test_staged_files_are_synced_before_a_resumed_move_reads_them_back(
    tmp_path: Path, run: Run, half: Callable[..., None], plant: Plant
) -> None:
    """Else it is read from memory, which proves nothing about the disk."""
    half(verify=Verify.STREAM)
    plant(f"""
def _watch():
    import ctypes, os
    def note(text):
        with open({str(tmp_path / "log")!r}, "a") as file:
            file.write(text + " ")
    class Library:
        def __init__(self, *_, **__):
            self.syncfs = lambda fd: note("sync") or 0
    ctypes.CDLL = Library
    def read(fd, *_):
        if os.readlink(f"/proc/self/fd/{{fd}}").startswith({str(tmp_path / "b")!r}):
            note("read")
    os.posix_fadvise = read
_watch()
""")

    assert run(resume=True, mode=Mode.MOVE).status == "done"

    assert (tmp_path / "log").read_text().split()[:2] == ["sync", "read"]


def test_a_garbage_journal_makes_a_resumed_transfer_start_over(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half()
    (staging(tmp_path / "b")[0] / "journal").write_bytes(os.urandom(100_000))

    report = run(resume=True)

    assert (report.status, report.bytes_resumed) == ("done", 0)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_a_staged_file_lost_after_planning_stops_a_resumed_move(
    tmp_path: Path, run: Run, half: Callable[..., None]
) -> None:
    half(mode=Mode.MOVE)
    before = whole(tmp_path / "a")

    lose = Meddler(Phase.TRANSFER, lambda: in_staging(tmp_path, CLIP).unlink())

    with pytest.raises(engine.VerifyFailed, match="proven, but"):
        run(lose, resume=True, mode=Mode.MOVE)

    assert whole(tmp_path / "a") == before
    assert not (tmp_path / "b").exists()


# -- a full disk ------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB; needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "ketter", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_transfer_that_filled_the_disk_is_kept_only_with_resume(
    tmp_path: Path, run: Run, disk: Path, resume: bool
) -> None:
    build_many(tmp_path / "a", 512)  # 16 MiB
    fill = Meddler(Phase.TRANSFER, lambda: (disk / "others").write_bytes(bytes(14 * MIB)))

    with pytest.raises(engine.NoSpace) as caught:
        run(fill, target=endpoint(disk / "b"), resume=resume)

    assert caught.value.kept is resume
    assert sorted(os.listdir(disk)) == (["b", "others"] if resume else ["others"])
    (disk / "others").unlink()
    report = run(target=endpoint(disk / "b"), resume=True)
    assert report.status == "done"
    assert (report.bytes_resumed >= 4 * MIB) is resume
    assert_equal_trees(whole(tmp_path / "a"), whole(disk / "b"))
