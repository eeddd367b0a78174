"""The archives on the wire and those that are delivered: standard ones, whole and complete."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, Strategy
from engine.agent import wire
from engine.agent.source.filters import Filter
from engine.agent.source.paced_writer import FrameWriter
from engine.agent.source.scan import Scanner, Wanted
from engine.agent.source.sender import Sender
from engine.agent.tree import Tree
from tests.engine.exactness import (
    assert_only_specials_failed,
    specials,
    to_arrive,
    with_folders_above,
)
from tests.rig.archives import UTF8_FLAG, assert_extracts_to, assert_standard, name_of
from tests.rig.frames import read_frame
from tests.rig.hard_tree import assert_same, build_hard, describe
from tests.rig.observers import Meddler
from tests.rig.planted_code import Plant
from tests.rig.transfers import Run, endpoint

pytestmark = pytest.mark.usefixtures("leave_no_hard_tree")


#: The archive of the largest tree and what comes out of it again.
NEEDED_BYTES = 12 << 30


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[Path]:
    """Where what a sender puts on the wire is kept; pytest would remove it too late."""
    archive = tmp_path / "teed.zip"
    yield archive
    archive.unlink(missing_ok=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Where the tools run: testing an archive must write nothing."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


def teed(root: Path, archive: Path) -> None:
    """Write what a sender puts on the wire for a zip parcel of a whole tree, without the frames."""
    tree = Tree(os.open(root, os.O_RDONLY))
    entries: list[wire.Entry] = []
    wanted = Wanted(Filter(()))
    Scanner(tree, wanted, entries.append, lambda *failure: pytest.fail(str(failure))).scan()
    quiet, keep = os.pipe()
    way_out, way_in = os.pipe()
    head = {"kind": "zip", "parcel": 1}
    with ThreadPoolExecutor(1) as beside:
        kept = beside.submit(keep_payload, way_out, archive)
        try:
            Sender(tree, FrameWriter(way_in, quiet)).send(head, wire.pack_entries(entries))
        finally:
            for opened in (way_in, quiet, keep):
                os.close(opened)
            tree.close()
        kept.result()


def keep_payload(frames: int, archive: Path) -> None:
    """Write the payload of a stream of frames, with a hole where there are only zeros."""
    with open(frames, "rb") as stream, archive.open("wb") as file:
        kind, body = read_frame(stream)
        while kind in (wire.HEAD, wire.DATA):
            if kind == wire.DATA and body == bytes(len(body)):
                file.seek(len(body), os.SEEK_CUR)
            elif kind == wire.DATA:
                file.write(body)
            kind, body = read_frame(stream)
        file.truncate(file.tell())


#: More and larger members than zip32 allows.
BEYOND_ZIP32 = pytest.param(
    {"large": True, "many": True},
    marks=[pytest.mark.slow, pytest.mark.xdist_group("large"), pytest.mark.nightly],
)


@pytest.mark.parametrize("more", [{}, BEYOND_ZIP32], ids=["usual", "beyond zip32"])
def test_a_zip_parcel_is_an_archive_that_standard_tools_read(
    tmp_path: Path, scratch: Path, sent: Path, more: dict[str, bool]
) -> None:
    if more:
        need_space(tmp_path)
    build_hard(tmp_path / "a", special=False, **more)

    teed(tmp_path / "a", sent)

    assert_standard(sent, describe(tmp_path / "a"), scratch)


def test_a_zip_parcel_marks_which_of_its_names_are_utf_8(tmp_path: Path, sent: Path) -> None:
    (tmp_path / "a").mkdir()
    are_utf8 = {b"plain": False, "\u00e4".encode(): True, b"\xff": False, b"\xed\xa0\x80": False}
    for name in are_utf8:
        (tmp_path / "a" / os.fsdecode(name)).touch()

    teed(tmp_path / "a", sent)

    with zipfile.ZipFile(sent) as read:
        marked = {name_of(info): info.flag_bits & UTF8_FLAG != 0 for info in read.infolist()}
    assert marked == are_utf8


def need_space(folder: Path) -> None:
    """Skip where the largest tree and its archive have no room."""
    if shutil.disk_usage(folder).free < NEEDED_BYTES:
        pytest.skip(
            "the archive of a 4 GiB file needs 12 GiB of free space in the temporary folder"
        )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("target", "made"), [("b", "b/a.zip"), ("b/c/", "b/c/a.zip"), ("b/taken.zip", "b/taken.zip")]
)
def test_the_archive_strategy_delivers_the_tree_as_a_standard_archive(
    tmp_path: Path, run: Run, scratch: Path, target: str, made: str, mode: Mode
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")

    report = run(target=endpoint(f"{tmp_path}/{target}"), strategy=Strategy.ARCHIVE, mode=mode)

    assert_only_specials_failed(report, before)
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "b").rglob("*.*")] == [made]
    expected = to_arrive(before)
    assert_standard(tmp_path / made, expected, scratch)
    assert_extracts_to(tmp_path / made, expected, tmp_path / "extracted")
    left = describe(tmp_path / "a")
    if mode is Mode.MOVE:
        assert set(left) == with_folders_above(specials(before))
    else:
        assert_same(before, left)


@pytest.mark.nightly  # The whole has it in a job: tests/faults/test_names.py.
@pytest.mark.slow
@pytest.mark.xdist_group("large")
def test_a_delivered_archive_may_exceed_the_limits_of_zip32(
    tmp_path: Path, run: Run, scratch: Path
) -> None:
    need_space(tmp_path)
    build_hard(tmp_path / "a", large=True, many=True)
    expected = to_arrive(describe(tmp_path / "a"))

    run(strategy=Strategy.ARCHIVE)

    assert_standard(tmp_path / "b" / "a.zip", expected, scratch)
    assert_extracts_to(tmp_path / "b" / "a.zip", expected, tmp_path / "extracted")


def test_an_archive_has_special_bits_when_special_bits_is_set(tmp_path: Path, run: Run) -> None:
    build_hard(tmp_path / "a")
    expected = to_arrive(describe(tmp_path / "a"), special_bits=True)

    run(strategy=Strategy.ARCHIVE, special_bits=True)

    assert_extracts_to(tmp_path / "b" / "a.zip", expected, tmp_path / "extracted")


@pytest.mark.parametrize("hard_links", ["copy", "keep"])
def test_an_archive_has_the_content_of_every_hard_linked_name(
    tmp_path: Path, run: Run, scratch: Path, hard_links: str
) -> None:
    build_hard(tmp_path / "a")
    expected = to_arrive(describe(tmp_path / "a"))

    run(strategy=Strategy.ARCHIVE, hard_links=engine.HardLinks(hard_links))

    assert_standard(tmp_path / "b" / "a.zip", expected, scratch)


@pytest.mark.parametrize(("target", "made"), [("b/", "b/clip.mov.zip"), ("b/one.zip", "b/one.zip")])
def test_an_archive_of_one_file_holds_that_file(
    tmp_path: Path, run: Run, target: str, made: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip.mov").write_bytes(b"frames")

    run(
        source=endpoint(tmp_path / "a" / "clip.mov"),
        target=endpoint(f"{tmp_path}/{target}"),
        strategy=Strategy.ARCHIVE,
    )

    with zipfile.ZipFile(tmp_path / made) as read:
        assert {name: read.read(name) for name in read.namelist()} == {"clip.mov": b"frames"}


def test_an_empty_folder_makes_an_empty_archive(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a").mkdir()

    report = run(strategy=Strategy.ARCHIVE)

    assert report.status == "done"
    with zipfile.ZipFile(tmp_path / "b" / "a.zip") as read:
        assert read.namelist() == []


@pytest.mark.parametrize("mode", Mode)
def test_an_existing_archive_is_not_replaced_by_default(
    tmp_path: Path, run: Run, mode: Mode
) -> None:
    build_hard(tmp_path / "a", special=False)
    before = describe(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.zip").write_bytes(b"somebody's")

    with pytest.raises(engine.TargetExists, match=r"a\.zip"):
        run(strategy=Strategy.ARCHIVE, mode=mode)
    assert (tmp_path / "b" / "a.zip").read_bytes() == b"somebody's"
    assert_same(before, describe(tmp_path / "a"))


def test_a_copy_with_the_overwrite_policy_replaces_an_existing_archive(
    tmp_path: Path, run: Run, scratch: Path
) -> None:
    build_hard(tmp_path / "a", special=False)
    before = describe(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.zip").write_bytes(b"somebody's")

    run(strategy=Strategy.ARCHIVE, on_conflict=OnConflict.OVERWRITE)

    assert_standard(tmp_path / "b" / "a.zip", to_arrive(before), scratch)


@pytest.mark.parametrize("mode", Mode)
def test_a_damaged_archive_is_not_delivered_and_removes_nothing(
    tmp_path: Path, run: Run, mode: Mode
) -> None:
    build_hard(tmp_path / "a")
    before = describe(tmp_path / "a")

    with pytest.raises(engine.VerifyFailed):
        run(strategy=Strategy.ARCHIVE, mode=mode, inject_fault="flip-byte")

    assert_same(before, describe(tmp_path / "a"))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("size", [10, 6 << 20])
def test_a_file_that_changed_before_it_was_read_is_not_in_the_archive(
    tmp_path: Path, run: Run, scratch: Path, size: int, mode: Mode
) -> None:
    build_hard(tmp_path / "a", special=False)
    odd = tmp_path / "a" / "odd"
    odd.write_bytes(b"x" * size)
    before = describe(tmp_path / "a")
    del before[b"odd"]

    change = Meddler(engine.Phase.TRANSFER, lambda: odd.write_bytes(b"changed"))
    report = run(change, strategy=Strategy.ARCHIVE, mode=mode)

    assert [(f.path, f.code) for f in report.failures] == [("odd", "SOURCE_CHANGED")]
    assert_standard(tmp_path / "b" / "a.zip", to_arrive(before), scratch)
    assert odd.read_bytes() == b"changed"


#: Part of the way through the file of that name its host finds no more bytes.
CUT_SHORT = """
def _cut_short():
    import os
    readv = os.readv
    def cut(fd, buffers):
        if os.readlink("/proc/self/fd/%d" % fd).endswith("/odd") and os.lseek(fd, 0, 1) > 1 << 20:
            return 0
        return readv(fd, buffers)
    os.readv = cut
_cut_short()
"""


@pytest.mark.parametrize("mode", Mode)
def test_an_archive_with_a_file_that_was_cut_short_is_not_delivered(
    tmp_path: Path, run: Run, plant: Plant, mode: Mode
) -> None:
    build_hard(tmp_path / "a", special=False)
    (tmp_path / "a" / "odd").write_bytes(b"x" * (6 << 20))
    before = describe(tmp_path / "a")
    plant(CUT_SHORT)

    with pytest.raises(engine.SourceChanged, match="odd"):
        run(strategy=Strategy.ARCHIVE, mode=mode)

    # What has arrived may stay in its staging folder, for a further attempt.
    left = os.listdir(tmp_path / "b") if (tmp_path / "b").exists() else []
    assert [name for name in left if not name.startswith(".ketter-")] == []
    assert_same(before, describe(tmp_path / "a"))
