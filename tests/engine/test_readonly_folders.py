"""Folders that are ours and that shut us out: opened for publishing and removing, then put back."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import engine
from engine import HardLinks, Mode, OnConflict, Phase, Strategy
from tests.engine.plain import PLAIN, ROOT, give_to_another, mode, open_all
from tests.rig.interrupted import staging, whole
from tests.rig.planted_code import WRAP_EXCLUSIVE_RENAME, Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees, put

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="agents of an ordinary user: Linux")

#: Modes that let names be looked up, and not come and go.
SHUT = [0o555, 0o500, 0o511, 0o111, 0o311, 0o100, 0o1555]


@pytest.fixture(autouse=True)
def _plain_agents(plant: Plant) -> None:
    plant(PLAIN)


# -- at the target ---------------------------------------------------------


def test_a_second_copy_adds_files_to_folders_that_arrived_read_only(
    tmp_path: Path, run: Run
) -> None:
    """As module caches are: the folders arrive as 0555, and later something new is in them."""
    a, b = tmp_path / "a", tmp_path / "b"
    put(a / "mod/pkg/a")
    for folder in ("mod/pkg", "mod"):
        (a / folder).chmod(0o555)
    run()
    assert mode(b / "mod/pkg") == 0o555
    (a / "mod/pkg").chmod(0o755)
    put(a / "mod/pkg/b")
    put(a / "mod/pkg/new/deep/er")
    (a / "mod/pkg").chmod(0o555)
    put(a / "loose")

    report = run()

    assert (report.status, report.failures) == ("done", ())
    assert_equal_trees(whole(a), {**whole(b), b".": whole(a)[b"."]})
    open_all(a, b)


@pytest.mark.parametrize("shut", SHUT)
@pytest.mark.parametrize("kind", ["new", "replaced", "folder", "link", "twin", "nested"])
def test_new_entries_are_delivered_into_a_read_only_target_folder(
    tmp_path: Path, run: Run, kind: str, shut: int
) -> None:
    """The folder is passed through only: no rule of the source's gives it another mode."""
    a, b = tmp_path / "a", tmp_path / "b"
    put(b / "old/er/there", "theirs", 1)
    (a / "old/er").mkdir(parents=True)
    new = {
        "new": "old/er/f", "replaced": "old/er/there", "folder": "old/er/g/f", "link": "old/er/l",
        "twin": "old/er/first", "nested": "old/er/f",
    }[kind]  # fmt: skip
    if kind == "link":
        (a / new).symlink_to("there")
    else:
        put(a / new)
    if kind == "twin":
        os.link(a / new, a / "old/er/second")
    (b / "old/er").chmod(shut)
    if kind == "nested":
        (b / "old").chmod(shut)
        b.chmod(shut)
    before = {path: mode(path) for path in (b, b / "old", b / "old/er")}

    report = run(
        on_conflict=OnConflict.OVERWRITE,
        hard_links=HardLinks.KEEP,
    )

    assert (report.status, report.failures) == ("done", ())
    assert {path: mode(path) for path in before} == before
    open_all(b)
    names = set(os.listdir(a / "old/er"))
    assert set(os.listdir(b / "old/er")) == names | {"there"}
    assert staging(b) == []
    if kind not in ("link", "folder"):
        assert (b / new).read_text() == "content"


@pytest.mark.parametrize("shut", SHUT)
@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.ARCHIVE])
def test_a_read_only_top_folder_gets_its_mode_back_after_delivery(
    tmp_path: Path, run: Run, shut: int, strategy: Strategy
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    put(a / "f")
    put(b / "theirs")
    b.chmod(shut)

    run(strategy=strategy, verify=engine.Verify.READBACK)

    assert mode(b) == shut
    assert b.stat().st_atime <= time.time() + 1  # It stands for no mode any more.
    assert sorted(os.listdir(b)) == ["a.zip" if strategy is Strategy.ARCHIVE else "f", "theirs"]


@pytest.mark.parametrize("shut", SHUT)
@pytest.mark.parametrize("name", ["b/f", "b/", "b/new"])
def test_a_single_file_is_moved_into_a_read_only_folder(
    tmp_path: Path, run: Run, shut: int, name: str
) -> None:
    put(tmp_path / "f")
    put(tmp_path / "b/f", "theirs", 1)
    (tmp_path / "b").chmod(shut)

    run(
        source=endpoint(tmp_path / "f"),
        target=endpoint(f"{tmp_path}/{name}"),
        on_conflict=OnConflict.KEEP_BOTH,
        mode=Mode.MOVE,
    )

    assert mode(tmp_path / "b") == shut
    names = {"f", "new"} if name == "b/new" else {"f", "f (2)"}
    assert set(os.listdir(tmp_path / "b")) == names
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("policy", [OnConflict.KEEP_BOTH, OnConflict.OVERWRITE_OLDER])
def test_conflict_policies_apply_in_read_only_folders(
    tmp_path: Path, run: Run, policy: OnConflict
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    put(a / "old/f", "ours", 9)
    put(b / "old/f", "theirs", 1)
    (b / "old").chmod(0o555)
    (a / "old").chmod(0o555)

    run(on_conflict=policy, mode=Mode.MOVE)

    ours = "f (2)" if policy is OnConflict.KEEP_BOTH else "f"
    assert (b / "old" / ours).read_text() == "ours"
    assert mode(b / "old") == 0o555
    assert os.listdir(a) == []


def test_read_only_modes_are_restored_when_publishing_fails_half_way(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("one/f", "two/f"):
        put(a / name)
        (b / name).parent.mkdir(parents=True)
        (b / name).parent.chmod(0o555)
    b.chmod(0o555)
    plant(
        PLAIN
        + WRAP_EXCLUSIVE_RENAME
        + """
def _failing():
    import os
    def failing(call):
        def fail_in_two(fd, name, new_fd, new_name, flag):
            if name == b"f" and os.readlink("/proc/self/fd/%d" % new_fd).endswith("two"):
                raise OSError(errno.EIO, "Input/output error")
            return call(fd, name, new_fd, new_name, flag)
        return fail_in_two
    _wrap_exclusive_rename(failing)
_failing()
"""
    )

    with pytest.raises(engine.EngineError):
        run()

    assert [mode(path) for path in (b, b / "one", b / "two")] == [0o555, 0o555, 0o555]


def test_a_transfer_into_a_read_only_top_folder_is_resumed(tmp_path: Path, run: Run) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    put(a / "old/f")
    (b / "old").mkdir(parents=True)
    (b / "old").chmod(0o555)
    b.chmod(0o555)

    class Break(engine.SilentObserver):
        def phase(self, phase: Phase) -> None:
            if phase is Phase.PUBLISH:
                raise engine.Interrupted("enough")

    with pytest.raises(engine.Interrupted):
        run(Break())
    assert (mode(b), len(staging(b))) == (0o555, 1)  # Also while it waits.

    report = run(resume=True, attempt=2)

    assert (report.files_resumed, mode(b), os.listdir(b)) == (1, 0o555, ["old"])


def test_a_cancelled_transfer_leaves_a_read_only_top_folder_as_it_was(
    tmp_path: Path, run: Run
) -> None:
    put(tmp_path / "a/f")
    (tmp_path / "b").mkdir()
    os.utime(tmp_path / "b", ns=(7, 7))
    (tmp_path / "b").chmod(0o555)

    class Cancel(engine.SilentObserver):
        def phase(self, phase: Phase) -> None:
            if phase is Phase.PUBLISH:
                raise engine.Cancelled("no more")

    with pytest.raises(engine.Cancelled):
        run(Cancel())

    found = (tmp_path / "b").stat()
    assert (os.listdir(tmp_path / "b"), found.st_mtime_ns) == ([], 7)
    assert mode(tmp_path / "b") == 0o555


# -- at the source -----------------------------------------------------------


def build_source(a: Path, shut: int) -> None:
    put(a / "mod/pkg/f")
    put(a / "mod/pkg/g.keep")
    put(a / "mod/h")
    (a / "mod/pkg/l").symlink_to("f")
    for path in ("mod/pkg", "mod"):
        os.utime(a / path, ns=(9, 9))
        (a / path).chmod(shut)
    a.chmod(shut)


@pytest.mark.parametrize("shut", [0o555, 0o500, 0o577])
def test_a_move_removes_files_from_read_only_source_folders(
    tmp_path: Path, run: Run, shut: int
) -> None:
    a = tmp_path / "a"
    build_source(a, shut)
    before = whole(a)

    report = run(mode=Mode.MOVE)

    assert (report.status, report.files_removed, os.listdir(a)) == ("done", 4, [])
    assert mode(a) == shut
    assert_equal_trees(before, whole(tmp_path / "b"))
    open_all(tmp_path / "b")


def test_a_read_only_source_folder_that_stays_gets_its_mode_and_time_back(
    tmp_path: Path, run: Run
) -> None:
    a = tmp_path / "a"
    build_source(a, 0o555)

    report = run(mode=Mode.MOVE, filters=(("exclude", "*.keep"),))

    assert (report.status, report.files_removed) == ("done", 3)
    assert [path.name for path in a.rglob("*")] == ["mod", "pkg", "g.keep"]
    for path in (a, a / "mod", a / "mod/pkg"):
        assert mode(path) == 0o555
    assert (a / "mod/pkg").stat().st_mtime_ns == 9


@ROOT
def test_source_files_in_another_users_folder_are_reported_and_stay(
    tmp_path: Path, run: Run
) -> None:
    a = tmp_path / "a"
    build_source(a, 0o755)
    give_to_another(a / "mod/pkg")

    report = run(mode=Mode.MOVE)

    assert report.status == "partial"
    assert {failure.code for failure in report.failures} == {"PERMISSION_DENIED"}
    assert sorted(os.listdir(a / "mod/pkg")) == ["f", "g.keep", "l"]
    assert not (a / "mod/h").exists()
