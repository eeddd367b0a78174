"""The option `preallocate`: a large file's space is reserved before its bytes come."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import Mode, Strategy
from tests.rig.interrupted import MIB
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run

SIZE = 6 * MIB

#: Elsewhere the option does nothing, see
#: `test_preallocate_delivers_the_file_where_fallocate_is_missing`.
reserves = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has fallocate")


@pytest.fixture
def hollow(tmp_path: Path) -> Path:
    """A file that is one hole, but for its ends."""
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "clip.mov").open("wb") as file:
        file.write(b"head")
        file.seek(SIZE - 4)
        file.write(b"tail")
    return tmp_path


def blocks(path: Path) -> int:
    return path.stat().st_blocks * 512


@reserves
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("mode", Mode)
def test_preallocate_reserves_the_space_of_a_large_file(
    hollow: Path, run: Run, mode: Mode, streams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.parcels.builder.LARGE", 2 * MIB)
    monkeypatch.setattr("engine.parcels.builder.SLICE", MIB)
    monkeypatch.setattr("engine.plan.streams.WORTH_A_STREAM", MIB)
    content = (hollow / "a" / "clip.mov").read_bytes()

    run(preallocate=True, mode=mode, streams=streams)

    assert (hollow / "b" / "clip.mov").read_bytes() == content
    assert blocks(hollow / "b" / "clip.mov") >= SIZE


def test_a_hole_stays_a_hole_without_preallocate(hollow: Path, run: Run) -> None:
    run()
    assert blocks(hollow / "b" / "clip.mov") < SIZE


#: Notes the size of each reservation in a file.
NOTE = """
def _note():
    import ctypes
    real = ctypes.CDLL
    class Library:
        def __init__(self, *given, **named):
            self._library = real(*given, **named)
            self.fallocate = self._reserve
        def __getattr__(self, name):
            return getattr(self._library, name)
        def _reserve(self, fd, mode, start, size):
            with open(NOTES, "a") as notes:
                notes.write(f"{size.value}\\n")
            return self._library.fallocate(fd, mode, start, size)
    ctypes.CDLL = Library
_note()
"""


@pytest.fixture
def reserved(tmp_path: Path, plant: Plant) -> Callable[[], list[int]]:
    """The bytes of each reservation so far, in order."""
    notes = tmp_path / "notes"
    notes.touch()
    plant(NOTE.replace("NOTES", repr(str(notes))))
    return lambda: [int(line) for line in notes.read_text().split()]


@reserves
@pytest.mark.parametrize("strategy", ["auto", "zip", "files"])
def test_preallocate_reserves_the_space_of_files_of_a_mebibyte_and_more(
    tmp_path: Path, run: Run, reserved: Callable[[], list[int]], strategy: str
) -> None:
    (tmp_path / "a").mkdir()
    sizes = [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1]
    for size in sizes:
        (tmp_path / "a" / f"{size}").write_bytes(b"x" * size)

    run(preallocate=True, strategy=Strategy(strategy))

    assert sorted(reserved()) == sizes[3:]


@reserves
def test_preallocate_reserves_the_space_of_a_file_in_slices_once(
    hollow: Path, run: Run, reserved: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each of its parcels; two streams that begin at one moment may both do it."""
    monkeypatch.setattr("engine.parcels.builder.LARGE", 2 * MIB)
    monkeypatch.setattr("engine.parcels.builder.SLICE", MIB // 8)
    monkeypatch.setattr("engine.plan.streams.WORTH_A_STREAM", MIB)

    report = run(preallocate=True, streams=2)

    assert report.parcels > 4
    assert 1 <= len(reserved()) <= 2
    assert set(reserved()) == {SIZE}
    assert blocks(hollow / "b" / "clip.mov") >= SIZE


@reserves
@pytest.mark.parametrize(("code", "status"), [("EOPNOTSUPP", "done"), ("ENOSPC", "NO_SPACE")])
def test_preallocate_ignores_a_lack_of_support_and_fails_on_a_full_disk(
    hollow: Path, run: Run, plant: Plant, code: str, status: str
) -> None:
    plant(f"""
def _refuse():
    import ctypes, errno
    real = ctypes.CDLL
    class Library:
        def __init__(self, *given, **named):
            self._library = real(*given, **named)
            self.fallocate = self._fail
        def __getattr__(self, name):
            return getattr(self._library, name)
        def _fail(self, *_):
            ctypes.set_errno(errno.{code})
            return -1
    ctypes.CDLL = Library
_refuse()
""")
    if status == "done":
        assert run(preallocate=True).status == "done"
        assert (hollow / "b" / "clip.mov").stat().st_size == SIZE
        return
    with pytest.raises(engine.NoSpace):
        run(preallocate=True)
    assert not (hollow / "b" / "clip.mov").exists()


@pytest.mark.parametrize("streams", [1, 2])
def test_preallocate_delivers_the_file_where_fallocate_is_missing(
    hollow: Path, run: Run, plant: Plant, streams: int
) -> None:
    """As on macOS, whose C library has no fallocate."""
    plant("""
def _without():
    import ctypes
    real = ctypes.CDLL
    class Library:
        def __init__(self, *given, **named):
            self._library = real(*given, **named)
        def __getattr__(self, name):
            if name == "fallocate":
                raise AttributeError(name)
            return getattr(self._library, name)
    ctypes.CDLL = Library
_without()
""")
    content = (hollow / "a" / "clip.mov").read_bytes()

    assert run(preallocate=True, streams=streams).status == "done"

    assert (hollow / "b" / "clip.mov").read_bytes() == content
    assert blocks(hollow / "b" / "clip.mov") < SIZE or sys.platform != "linux"
