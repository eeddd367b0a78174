"""Targets and sources that behave badly: what is lost there, and who is told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, SilentObserver, Strategy
from engine.agent.target.staging.folder import Staging
from engine.agent.tree import remove_tree
from tests.rig.observers import Meddler
from tests.rig.planted_code import FOLDING, SHORT_NAMES, WRAP_EXCLUSIVE_RENAME, Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import build_small, snapshot


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_two_names_that_the_target_folds_into_one_lose_neither_file(
    tmp_path: Path, run: Run, plant: Plant, strategy: Strategy
) -> None:
    (tmp_path / "a").mkdir()
    for name in ("Clip.mov", "clip.mov", "other.mov"):
        (tmp_path / "a" / name).write_bytes(name.encode())
    plant(FOLDING)

    report = run(mode=Mode.MOVE, strategy=strategy)

    assert [(f.path, report.status) for f in report.failures] == [("clip.mov", "partial")]
    assert os.listdir(tmp_path / "a") == ["clip.mov"]
    assert (tmp_path / "b" / "clip.mov").read_bytes() == b"Clip.mov"


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_source_folder_that_vanishes_is_reported_and_the_rest_is_moved(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    build_small(tmp_path / "a", 20)
    (tmp_path / "a" / "gone").mkdir()
    (tmp_path / "a" / "gone" / "clip").write_bytes(b"frames")

    vanish = Meddler(engine.Phase.TRANSFER, lambda: shutil.rmtree(tmp_path / "a" / "gone"))
    report = run(vanish, mode=Mode.MOVE, strategy=strategy)

    assert (report.status, report.files, report.files_removed) == ("partial", 20, 20)
    assert sorted(f.path for f in report.failures) == ["gone", "gone/clip"]
    assert {f.code for f in report.failures} == {"VANISHED"}


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_names_too_long_for_the_target_are_reported_and_the_rest_is_moved(
    tmp_path: Path, run: Run, plant: Plant, strategy: Strategy
) -> None:
    build_small(tmp_path / "a", 20)
    (tmp_path / "a" / ("n" * 120)).write_bytes(b"frames")
    (tmp_path / "a" / ("f" * 120)).mkdir()
    (tmp_path / "a" / ("f" * 120) / "clip").write_bytes(b"frames")
    plant(SHORT_NAMES)

    report = run(mode=Mode.MOVE, strategy=strategy)

    assert (report.status, report.files, report.files_removed) == ("partial", 20, 20)
    assert {f.code for f in report.failures} == {"NAME_TOO_LONG"}
    assert sorted(f.path[0] for f in report.failures) == ["f", "f", "n"]


def test_a_file_that_disappears_from_the_staging_folder_stops_the_move(
    tmp_path: Path, run: Run
) -> None:
    build_small(tmp_path / "a", 20)
    before = snapshot(tmp_path / "a")

    def lose() -> None:
        staged = tmp_path / "b" / ".ketter-test.part" / "a1"
        next(path for path in staged.rglob("*") if path.is_file()).unlink()

    with pytest.raises(engine.VerifyFailed, match="20 files were proven, but 19"):
        run(Meddler(engine.Phase.PUBLISH, lose), mode=Mode.MOVE)

    assert snapshot(tmp_path / "a") == before
    assert not (tmp_path / "b").exists()


def test_a_file_that_appears_while_publishing_is_not_replaced(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("one", "two"):
        (tmp_path / "a" / name).write_bytes(b"ours")
    # In the very moment before the rename: after all looks at that place.
    plant(
        WRAP_EXCLUSIVE_RENAME
        + f"""
def _intrude():
    def intruding(call):
        def intrude_and_rename(fd, name, new_fd, new_name, flag):
            if new_name == b"two":
                with open({str(tmp_path / "b" / "two")!r}, "w") as file:
                    file.write("theirs")
            return call(fd, name, new_fd, new_name, flag)
        return intrude_and_rename
    _wrap_exclusive_rename(intruding)
_intrude()
"""
    )

    report = run(mode=Mode.MOVE, on_conflict=OnConflict.FAIL)

    assert [(one.path, one.code) for one in report.failures] == [("two", "TARGET_EXISTS")]
    assert (tmp_path / "b" / "two").read_bytes() == b"theirs"
    assert sorted(os.listdir(tmp_path / "a")) == ["two"]


#: Every agent believes it is on a machine of its own.
MANY_MACHINES = """
def _many_machines():
    import builtins, os, types
    real = builtins.open
    def no_boot_id(path, *args, **kwargs):
        if "boot_id" in str(path):
            raise OSError(errno.ENOENT, "none", path)
        return real(path, *args, **kwargs)
    builtins.open = no_boot_id
    found = os.uname()
    os.uname = lambda: types.SimpleNamespace(nodename=str(os.getpid()), version=found.version)
_many_machines()
"""


def test_a_share_seen_from_two_hosts_is_not_moved_onto_itself(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    build_small(tmp_path / "a", 5)
    before = set(snapshot(tmp_path / "a"))
    plant(MANY_MACHINES)

    with pytest.raises(engine.Overlap, match="seen from two hosts"):
        run(target=endpoint(tmp_path / "a"), mode=Mode.MOVE)
    first = min((tmp_path / "a").rglob("*.dpx"))
    with pytest.raises(engine.Overlap):
        run(source=endpoint(first), target=endpoint(first.parent), mode=Mode.MOVE)

    assert set(snapshot(tmp_path / "a")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_folder_mounted_below_both_ends_is_not_moved_onto_itself(
    tmp_path: Path, run: Run
) -> None:
    build_small(tmp_path / "a" / "same", 5)
    before = snapshot(tmp_path / "a")
    (tmp_path / "b" / "same").mkdir(parents=True)
    command = ["mount", "--bind", str(tmp_path / "a" / "same"), str(tmp_path / "b" / "same")]
    subprocess.run(command, check=True, timeout=10)
    try:
        with pytest.raises(engine.Overlap, match="same file"):
            run(mode=Mode.MOVE)
    finally:
        subprocess.run(["umount", str(tmp_path / "b" / "same")], check=True, timeout=10)

    assert snapshot(tmp_path / "a") == before


def test_a_repeated_move_makes_the_target_durable_before_it_proves_and_removes(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    (tmp_path / "a").mkdir()
    for number in range(5):
        (tmp_path / "a" / f"{number}.dpx").write_bytes(b"frames")
    run()
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
    unlink = os.unlink
    def noted_unlink(name, **kwargs):
        if name.endswith(".dpx"):
            note("remove")
        return unlink(name, **kwargs)
    os.unlink = noted_unlink
_watch()
""")

    assert run(mode=Mode.MOVE).files_removed == 5

    assert (tmp_path / "log").read_text().split() == ["sync"] + ["remove"] * 5


def test_a_very_deep_tree_is_moved_merged_and_cleared_away(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    depth = 250
    # What a depth of over a thousand would run into, sooner.
    plant(
        "import resource, sys; sys.setrecursionlimit(200)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))\n"
    )
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("clip", os.O_CREAT | os.O_WRONLY, dir_fd=fd))

    class Stop(SilentObserver):
        def phase(self, phase: engine.Phase) -> None:
            if phase is engine.Phase.PUBLISH:
                raise engine.Cancelled("enough")

    with pytest.raises(engine.Cancelled):
        run(Stop())
    assert not (tmp_path / "b").exists()
    assert run().files == 1
    os.close(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)

    report = run(mode=Mode.MOVE)

    assert (report.files, report.files_removed) == (1, 2)
    assert os.listdir(tmp_path / "a") == []
    tree = os.open(tmp_path, os.O_RDONLY)
    remove_tree(tree, "b")
    os.close(tree)
    assert not (tmp_path / "b").exists()


def test_a_transfer_cancelled_while_it_makes_its_staging_folder_leaves_nothing(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    build_small(tmp_path / "a", 5)
    plant("""
def _slow():
    import os, time
    mkdir = os.mkdir
    def slow_mkdir(name, *args, **kwargs):
        mkdir(name, *args, **kwargs)
        if name.startswith(".ketter"):
            time.sleep(0.5)
    os.mkdir = slow_mkdir
_slow()
""")

    class Stop(SilentObserver):
        def checkpoint(self) -> None:
            if (tmp_path / "b" / ".ketter-test.part").exists():
                raise engine.Cancelled("enough")

    with pytest.raises(engine.Cancelled):
        run(Stop())

    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_the_next_attempt_sets_mode_and_time_of_a_target_folder_made_by_a_dead_one(
    tmp_path: Path, run: Run, resume: bool
) -> None:
    build_small(tmp_path / "a", 5)
    os.chmod(tmp_path / "a", 0o751)
    os.utime(tmp_path / "a", ns=(5, 5))
    (tmp_path / "b").mkdir()  # What an attempt made that died then.
    fd = os.open(tmp_path / "b", os.O_RDONLY)
    Staging(fd, "test", 1, "this machine").prepare([str(tmp_path / "b")])
    os.close(fd)

    run(attempt=2, resume=resume)

    found = (tmp_path / "b").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o751, 5)


#: What is named here refuses us.
CLOSED = """
def _closed():
    import os
    def refusing(call):
        def with_refusal(name, *args, **kwargs):
            if kwargs.get("dir_fd") is not None and name in NAMES:
                raise PermissionError(errno.EACCES, "Permission denied", name)
            return call(name, *args, **kwargs)
        return with_refusal
    for name in ("mkdir", "unlink", "stat"):
        setattr(os, name, refusing(getattr(os, name)))
_closed()
"""


@pytest.mark.parametrize(
    ("name", "target", "named"),
    [(".ketter-test.part", "b", "b/.ketter-test.part"), ("new", "b/new/deep", "b/new")],
)
def test_a_permission_error_names_the_path_that_refused(
    tmp_path: Path, run: Run, plant: Plant, name: str, target: str, named: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip").write_bytes(b"frames")
    (tmp_path / "b").mkdir()
    plant(CLOSED.replace("NAMES", repr([name])))

    with pytest.raises(engine.PermissionDenied) as caught:
        run(target=endpoint(tmp_path / target))

    assert str(caught.value) == f"{tmp_path / named}: Permission denied"


def test_one_entry_that_refuses_is_named_and_the_others_arrive(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    (tmp_path / "a" / "reel").mkdir(parents=True)
    for name in ("clip", "other"):
        (tmp_path / "a" / "reel" / name).write_bytes(b"frames")
    (tmp_path / "b" / "reel").mkdir(parents=True)
    plant(
        CLOSED.replace("NAMES", repr(["clip"])).replace(
            'kwargs.get("dir_fd") is not None',
            f"os.path.realpath(f\"/proc/self/fd/{{kwargs.get('dir_fd')}}\")"
            f" == {str(tmp_path / 'b' / 'reel')!r}",
        )
    )

    report = run()

    found = [(one.path, one.code, one.message) for one in report.failures]
    assert found == [("reel/clip", "PERMISSION_DENIED", "reel/clip: Permission denied")]
    assert os.listdir(tmp_path / "b" / "reel") == ["other"]


def test_a_source_file_that_cannot_be_removed_is_reported_as_delivered(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip").write_bytes(b"frames")
    plant(CLOSED.replace("NAMES", "['clip']").replace('"mkdir", "unlink", "stat"', '"unlink",'))

    report = run(mode=Mode.MOVE)

    assert (report.status, report.files, report.files_removed) == ("partial", 1, 0)
    message = "clip was delivered, but stays: Permission denied"
    assert [(f.code, f.message) for f in report.failures] == [("PERMISSION_DENIED", message)]
    assert (tmp_path / "b" / "clip").read_bytes() == b"frames"


def test_an_agent_that_joins_during_its_removal_does_not_keep_the_staging_folder(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    """A further stream may come when all has been carried, and lock its place in there."""
    build_small(tmp_path / "a", 5)
    (tmp_path / "a").chmod(0o711)
    plant("""
def _late():
    import os
    rmdir, late = os.rmdir, [1, 2, 3]
    def late_rmdir(name, *args, **kwargs):
        if name == ".ketter-test.part" and late:
            late.pop()
            os.close(os.open(name + "/a1.lock", os.O_CREAT | os.O_RDWR, **kwargs))
        rmdir(name, *args, **kwargs)
    os.rmdir = late_rmdir
_late()
""")

    assert run().status == "done"

    assert {path.name for path in (tmp_path / "b").iterdir()} == set(os.listdir(tmp_path / "a"))
    assert (tmp_path / "b").stat().st_mode == (tmp_path / "a").stat().st_mode
