"""Files that travel alone: in order over one stream, in slices over several."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import Mode, SilentObserver, Verify
from engine.parcels.builder import LARGE
from tests.rig.lying import Lie
from tests.rig.observers import Meddler
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees, build_small, snapshot

SIZE = LARGE + (5 << 20) + 17
#: The kind of the parcels that a large file makes, by the number of streams.
KINDS = {1: "file", 3: "range"}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A large file with a hole, beside a few small ones."""
    build_small(tmp_path / "a", 20)
    path = tmp_path / "a" / "odd"
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
        file.truncate(SIZE - (9 << 20))
        file.truncate(SIZE)
    path.chmod(0o640)
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    return path


@pytest.mark.parametrize("verify", Verify)
@pytest.mark.parametrize("streams", KINDS)
def test_a_large_file_arrives_exactly_over_one_or_several_streams(
    tmp_path: Path, run: Run, odd: Path, streams: int, verify: Verify
) -> None:
    before = snapshot(tmp_path / "a")
    kinds: list[str] = []

    class Watch(SilentObserver):
        def parcel(self, parcel: engine.ParcelReport) -> None:
            if parcel.state == "verified":
                kinds.append(parcel.kind)

    report = run(Watch(), streams=streams, verify=verify, mode=Mode.MOVE)

    assert (report.status, report.files, report.files_removed) == ("done", 21, 21)
    assert KINDS[streams] in kinds
    assert_equal_trees(before, tmp_path / "b")
    assert os.listdir(tmp_path / "a") == []


@pytest.mark.parametrize("streams", KINDS)
def test_a_hole_in_a_large_file_stays_a_hole(
    tmp_path: Path, run: Run, odd: Path, streams: int
) -> None:
    run(streams=streams)

    held = [(tmp_path / name / "odd").stat().st_blocks * 512 for name in "ab"]
    assert max(held) <= SIZE - (4 << 20)


#: The last slice is damaged once, after it was written, and that is noticed.
DAMAGED = """
_slice = Receiver._slice
def _damaged(self, fd, entry, payload, offset, length):
    ours = _slice(self, fd, entry, payload, offset, length)
    if offset + length < entry.size or os.path.exists(FLAG):
        return ours
    open(FLAG, "w").close()
    os.pwrite(fd, b"no zeros", offset + (1 << 20))
    return bytes([ours[0] ^ 1]) + ours[1:]
Receiver._slice = _damaged
"""


def test_a_resent_slice_writes_zeros_over_damaged_bytes(
    tmp_path: Path, run: Run, odd: Path, lie: Lie
) -> None:
    lie(target_receiver=DAMAGED.replace("FLAG", repr(str(tmp_path / "flag"))))

    run(streams=3)

    assert (tmp_path / "flag").exists()
    assert_equal_trees(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("streams", KINDS)
def test_a_single_large_file_is_delivered_under_another_name(
    tmp_path: Path, run: Run, odd: Path, streams: int
) -> None:
    before = snapshot(tmp_path / "a")[b"odd"]

    run(source=endpoint(odd), target=endpoint(tmp_path / "b" / "even"), streams=streams)

    assert snapshot(tmp_path / "b") == {b"even": before}


@pytest.mark.parametrize("streams", KINDS)
def test_a_damaged_byte_in_a_large_file_fails_the_move_and_nothing_is_published(
    tmp_path: Path, run: Run, odd: Path, streams: int
) -> None:
    before = snapshot(tmp_path / "a")

    with pytest.raises(engine.VerifyFailed, match="digests"):
        run(source=endpoint(odd), mode=Mode.MOVE, streams=streams, inject_fault="flip-byte")

    assert snapshot(tmp_path / "a") == before
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("streams", KINDS)
@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "vanish"])
def test_a_large_file_that_changes_before_it_is_read_is_reported_and_stays(
    tmp_path: Path, run: Run, odd: Path, change: str, streams: int
) -> None:
    changes: dict[str, Callable[[], object]] = {
        "grow": lambda: os.truncate(odd, SIZE + 1),
        "shrink": lambda: os.truncate(odd, SIZE - 1),
        "touch": lambda: os.utime(odd, ns=(5, 5)),
        "vanish": odd.unlink,
    }

    meddler = Meddler(engine.Phase.TRANSFER, changes[change])
    report = run(meddler, mode=Mode.MOVE, streams=streams)

    assert (report.status, report.files) == ("partial", 20)
    assert [failure.path for failure in report.failures] == ["odd"]
    assert report.failures[0].code == ("VANISHED" if change == "vanish" else "SOURCE_CHANGED")
    assert odd.exists() is (change != "vanish")
    assert not (tmp_path / "b" / "odd").exists()


@pytest.mark.parametrize("streams", KINDS)
def test_a_large_file_that_changes_while_it_is_read_is_reported_and_stays(
    tmp_path: Path, run: Run, odd: Path, streams: int
) -> None:
    class Meddle(SilentObserver):
        def checkpoint(self) -> None:
            staged = list((tmp_path / "b").glob(".ketter-*/a1/odd"))
            if staged and odd.stat().st_mtime_ns != 5:
                os.utime(odd, ns=(5, 5))

    report = run(Meddle(), mode=Mode.MOVE, streams=streams, bwlimit=60 << 20)

    assert [(f.path, f.code) for f in report.failures] == [("odd", "SOURCE_CHANGED")]
    assert odd.exists()
    assert not (tmp_path / "b" / "odd").exists()
    assert report.files_removed == 20


@pytest.mark.parametrize("streams", KINDS)
def test_a_large_file_that_the_target_refuses_is_reported_and_the_rest_is_moved(
    tmp_path: Path, run: Run, odd: Path, plant: Plant, streams: int
) -> None:
    plant("""
def _picky():
    import os
    real = os.open
    def picky(name, *args, **kwargs):
        fd = kwargs.get("dir_fd")
        if name == "odd" and fd is not None and "/b/" in os.readlink("/proc/self/fd/%d" % fd):
            raise OSError(errno.EINVAL, "Invalid argument", name)
        return real(name, *args, **kwargs)
    os.open = picky
_picky()
""")

    report = run(mode=Mode.MOVE, streams=streams)

    assert [(f.path, f.code) for f in report.failures] == [("odd", "NAME_NOT_POSSIBLE")]
    assert (report.status, report.files_removed) == ("partial", 20)
    assert os.listdir(tmp_path / "a") == ["odd"]
