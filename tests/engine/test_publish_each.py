"""What cannot take its place is named, and stays at the source; all else is delivered."""

from __future__ import annotations

import os
import sys
import threading
from itertools import count
from pathlib import Path

import pytest

import engine
from engine import HardLinks, Mode, OnConflict, Verify
from engine.phases import Transfer
from tests.engine.plain import PLAIN, ROOT, give_to_another, mode
from tests.rig.interrupted import whole
from tests.rig.lanes import nightly
from tests.rig.lying import Lie
from tests.rig.planted_code import DYING, WRAP_EXCLUSIVE_RENAME, Plant
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import put
from tests.rig.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plants renameat2 in the agents")

#: Has renames and links from the staging folder into folders below one of a name fail, as the
#: system does where a disk is mounted there. Copies are renamed inside one folder.
REFUSING = (
    WRAP_EXCLUSIVE_RENAME
    + """
def _refusing(below, number, until=""):
    import os
    def forbids(fd, new_fd):
        if os.path.exists(until):
            return False
        there = [os.readlink("/proc/self/fd/%d" % each) for each in (fd, new_fd)]
        return ".part" in there[0] and below in there[1].split("/") and ".part" not in there[1]
    def exclusively(call):
        import ctypes
        def rename(fd, name, new_fd, new_name, flag):
            if forbids(fd, new_fd):
                ctypes.set_errno(number)
                return -1
            return call(fd, name, new_fd, new_name, flag)
        return rename
    _wrap_exclusive_rename(exclusively)
    def plainly(call):
        def rename(name, new_name, *, src_dir_fd=None, dst_dir_fd=None, **more):
            if src_dir_fd is not None and forbids(src_dir_fd, dst_dir_fd):
                raise OSError(number, os.strerror(number), name)
            return call(name, new_name, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **more)
        return rename
    os.rename, os.link = plainly(os.rename), plainly(os.link)
"""
)
OTHER_DISK = REFUSING + "_refusing('disk', errno.EXDEV)\n"
#: Errors that no time mends, and what they are called.
REFUSALS = {
    "EACCES": "PERMISSION_DENIED",
    "EPERM": "PERMISSION_DENIED",
    "EROFS": "PERMISSION_DENIED",
    "EBUSY": "IO_ERROR",
    "ETXTBSY": "IO_ERROR",
    "ENAMETOOLONG": "NAME_TOO_LONG",
    "EILSEQ": "NAME_NOT_POSSIBLE",
}


def build(tmp_path: Path) -> tuple[Path, Path]:
    """A source with files in and beside a folder that the target has, too, as a disk's."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("before", "disk/f", "disk/new/er/g", "disk/new/h", "new/i", "zuletzt"):
        put(a / name, name)
    (a / "disk/link").symlink_to("f")
    (a / "disk/leer").mkdir()
    (a / "disk/new").chmod(0o750)
    (a / "disk/new/er/g").chmod(0o640)
    (b / "disk").mkdir(parents=True)
    return a, b


@pytest.mark.parametrize("way", Mode, ids=str)
@pytest.mark.parametrize("name", REFUSALS)
def test_entries_that_a_folder_refuses_are_named_and_stay_at_the_source(
    tmp_path: Path, run: Run, plant: Plant, name: str, way: Mode
) -> None:
    a, b = build(tmp_path)
    source = whole(a)
    plant(f"{REFUSING}_refusing('disk', errno.{name})\n")

    report = run(mode=way)

    assert report.status == "partial"
    codes = {failure.path: failure.code for failure in report.failures}
    refused = ("disk/f", "disk/link", "disk/new/h", "disk/new/er/g")
    assert codes.items() >= {(path, REFUSALS[name]) for path in refused}
    assert all(path.split("/")[0] == "disk" for path in codes)
    assert (report.files, report.failures_total) == (3, len(codes))
    assert os.listdir(b / "disk") == []
    assert sorted(os.listdir(b)) == ["before", "disk", "new", "zuletzt"]
    if way is Mode.MOVE:
        assert report.files_removed == 3
        assert sorted(os.listdir(a)) == ["disk"]
        kept = {path for path in source if path.startswith(b"disk/")}
        assert {b"disk/" + path for path in whole(a / "disk")} - {b"disk/."} == kept
    else:
        assert whole(a) == source


def test_an_error_that_may_be_mended_ends_the_attempt_and_the_next_one_goes_on(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    a, b = build(tmp_path)
    mended = tmp_path / "mended"
    until = f"_refusing('disk', errno.ENOSPC, {str(mended)!r})\n"
    plant(REFUSING + until)
    with pytest.raises(engine.EngineError, match="No space left"):
        run(resume=True)
    mended.touch()

    report = run(resume=True, attempt=2)

    assert (report.status, report.failures) == ("done", ())
    assert contents(b) == contents(a)


@pytest.mark.parametrize("way", Mode, ids=str)
@pytest.mark.parametrize("verify", Verify, ids=str)
def test_entries_are_copied_into_a_folder_on_another_disk(
    tmp_path: Path, run: Run, plant: Plant, way: Mode, verify: Verify
) -> None:
    a, b = build(tmp_path)
    source = {path: entry for path, entry in whole(a).items() if path not in (b"", b".")}
    plant(OTHER_DISK)

    report = run(mode=way, verify=verify)

    assert (report.status, report.failures, report.files) == ("done", (), 7)
    arrived = whole(b)
    assert {path: arrived[path] for path in source if path != b"disk"} == {
        path: entry for path, entry in source.items() if path != b"disk"
    }
    assert (mode(b / "disk/new"), mode(b / "disk/new/er/g")) == (0o750, 0o640)
    assert [name for _, _, names in os.walk(b) for name in names if ".ketter" in name] == []
    assert way is Mode.COPY or os.listdir(a) == []


def test_hard_links_stay_links_on_another_disk(tmp_path: Path, run: Run, plant: Plant) -> None:
    a, b = build(tmp_path)
    os.link(a / "disk/f", a / "disk/new/second")
    plant(OTHER_DISK)

    report = run(hard_links=HardLinks.KEEP)

    assert report.status == "done"
    assert (b / "disk/f").samefile(b / "disk/new/second")


@pytest.mark.parametrize("policy", [OnConflict.OVERWRITE, OnConflict.KEEP_BOTH], ids=str)
def test_the_policy_holds_on_another_disk(
    tmp_path: Path, run: Run, plant: Plant, policy: OnConflict
) -> None:
    _, b = build(tmp_path)
    put(b / "disk/f", "theirs, longer")
    plant(OTHER_DISK)

    assert run(on_conflict=policy).status == "done"

    names = {path.name: path.read_text() for path in (b / "disk").iterdir() if path.is_file()}
    ours = {"f": "disk/f"} if policy is OnConflict.OVERWRITE else {"f (2)": "disk/f"}
    assert {name: text for name, text in names.items() if name != "link"} == {
        **({"f": "theirs, longer"} if policy is OnConflict.KEEP_BOTH else {}),
        **ours,
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", [nightly(Mode.COPY), Mode.MOVE], ids=str)
@pytest.mark.parametrize("resume", [nightly(False), True])
def test_a_death_at_any_step_on_another_disk_is_made_good_by_the_next_attempt(
    tmp_path: Path, run: Run, plant: Plant, way: Mode, resume: bool
) -> None:
    deaths = 0
    plant(OTHER_DISK)
    wanted = contents(build(tmp_path / "whole")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "_abandon", lambda *_: None)  # The worker dies as well.
        for step in count(1 + resume, 2):
            a, b = build(tmp_path / str(step))
            text = DYING.replace("LOG", repr(str(tmp_path / str(step) / "log")))
            plant(text.replace("DEADLY", str(step)))
            ends = {"source": endpoint(a), "target": endpoint(b)}
            try:
                run(mode=way, **ends)
            except engine.AgentLost:
                deaths += 1
            else:
                break

            report = run(mode=way, attempt=2, resume=resume, **ends)

            assert (report.status, report.failures) == ("done", ()), step
            assert contents(b) == wanted, step
            assert [path.name for path in b.rglob(".ketter*")] == [], step
            assert way is Mode.COPY or contents(a) == {}, step
    assert deaths > 12


@ROOT
def test_what_lies_below_a_closed_folder_of_another_user_is_named(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    a, b = build(tmp_path)
    give_to_another(b / "disk")
    (b / "disk").chmod(0o700)
    plant(PLAIN)

    report = run(mode=Mode.MOVE)

    assert report.status == "partial"
    assert {failure.code for failure in report.failures} == {"PERMISSION_DENIED"}
    assert {failure.path for failure in report.failures} >= {"disk/f", "disk/new/er/g"}
    assert sorted(os.listdir(a)) == ["disk"]
    assert sorted(os.listdir(b)) == ["before", "disk", "new", "zuletzt"]


@ROOT
def test_a_folder_of_ours_in_a_folder_of_another_user_takes_its_files(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    a, b = build(tmp_path)
    (b / "disk/new").mkdir()
    give_to_another(b / "disk")
    plant(PLAIN)

    report = run()

    assert {failure.path for failure in report.failures} == {"disk/f", "disk/link", "disk/leer"}
    assert (b / "disk/new/er/g").read_text() == (a / "disk/new/er/g").read_text()


#: Waits, between the look at the target and the renames, until the file WAIT is gone.
PAUSE = """
_place_all = Publisher._place
def _pause(self, top):
    import time
    until = time.monotonic() + 20
    if not top:
        open(WAIT, "w").close()
        while os.path.exists(WAIT) and time.monotonic() < until:
            time.sleep(0.01)
    _place_all(self, top)
Publisher._place = _pause
"""


@ROOT
@pytest.mark.parametrize("away", ["renamed", "removed"])
def test_a_folder_that_its_owner_takes_away_meanwhile_loses_nothing(
    tmp_path: Path, run: Run, plant: Plant, lie: Lie, away: str
) -> None:
    """The folder is known as one that the target has, in a closed one: found by an attack."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("pub/x", "pub/sub/f", "other"):
        put(a / name)
    (b / "pub/sub").mkdir(parents=True)
    (b / "pub/sub").chmod(0o777)
    give_to_another(b / "pub")
    plant(PLAIN)
    wait = tmp_path / "wait"
    lie(target_publish_publisher=PAUSE.replace("WAIT", repr(str(wait))))

    def take_away() -> None:
        wait_until(wait.exists, 30)
        (b / "pub/sub").rename(b / "pub/away") if away == "renamed" else (b / "pub/sub").rmdir()
        wait.unlink()

    owner = threading.Thread(target=take_away)
    owner.start()

    report = run(mode=Mode.MOVE)

    owner.join()
    assert report.status == "partial"
    assert {failure.path for failure in report.failures} >= {"pub/x", "pub/sub/f"}
    assert sorted(path.name for path in a.rglob("*") if path.is_file()) == ["f", "x"]


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }
