"""Modes of folders: one that the target had keeps its own, one that arrives has the source's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict
from tests.engine.plain import PLAIN, ROOT, give_to_another, mode
from tests.engine.test_xattrs import ACCESS, DEFAULT, SHARED
from tests.rig.facts import keeps_attributes
from tests.rig.planted_code import WRAP_EXCLUSIVE_RENAME, Plant
from tests.rig.transfers import Run
from tests.rig.trees import put

#: Kills the first agent that has published a folder of that name.
KILL = (
    WRAP_EXCLUSIVE_RENAME
    + """
def _killing(sign):
    import os, signal
    def killing(call):
        def rename_and_die(fd, name, new_fd, new_name, flag):
            result = call(fd, name, new_fd, new_name, flag)
            if name == b"ours" and not os.path.exists(sign):
                open(sign, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return rename_and_die
    _wrap_exclusive_rename(killing)
_killing(SIGN)
"""
)


def kill_once(tmp_path: Path) -> str:
    return KILL.replace("SIGN", repr(str(tmp_path / "was killed")))


def build(tmp_path: Path) -> tuple[Path, Path]:
    """A source with open folders, and a target that has one of them, and closes it to others."""
    a, b = tmp_path / "a", tmp_path / "b"
    for name in ("private/new", "private/deep/er/new", "ours/new"):
        put(a / name)
    (b / "private" / "deep").mkdir(parents=True)
    for folder in (a, a / "private", a / "private/deep", a / "private/deep/er", a / "ours"):
        folder.chmod(0o777)
    (b / "private").chmod(0o700)
    (b / "private" / "deep").chmod(0o750)
    b.chmod(0o711)
    return a, b


@pytest.mark.parametrize("policy", OnConflict, ids=str)
@pytest.mark.parametrize("way", Mode, ids=str)
def test_a_folder_that_the_target_had_keeps_its_mode(
    tmp_path: Path, run: Run, way: Mode, policy: OnConflict
) -> None:
    _, b = build(tmp_path)

    report = run(mode=way, on_conflict=policy)

    assert (report.status, report.failures) == ("done", ())
    kept = {b: 0o711, b / "private": 0o700, b / "private/deep": 0o750}
    arrived = {b / "ours": 0o777, b / "private/deep/er": 0o777}
    assert {path: mode(path) for path in kept | arrived} == kept | arrived


def test_a_kept_mode_is_no_reason_to_send_anything_again(tmp_path: Path, run: Run) -> None:
    _, b = build(tmp_path)
    run()
    before = {path: path.stat().st_ctime_ns for path in b.rglob("*")}

    report = run()

    assert (report.files, report.files_skipped, report.parcels) == (0, 3, 0)
    assert {path: path.stat().st_ctime_ns for path in b.rglob("*")} == before


@pytest.mark.parametrize("shut", [0o000, 0o300, 0o500, 0o555])
def test_a_folder_that_locks_its_owner_out_is_opened_and_keeps_its_mode(
    tmp_path: Path, run: Run, plant: Plant, shut: int
) -> None:
    plant(PLAIN)
    a, b = build(tmp_path)
    (b / "private").chmod(shut)

    report = run()

    assert (report.status, report.failures) == ("done", ())
    assert mode(b / "private") == shut
    (b / "private").chmod(0o700)
    assert (b / "private" / "new").read_bytes() == (a / "private" / "new").read_bytes()


def test_the_set_group_id_bit_of_the_target_stays_and_is_inherited(
    tmp_path: Path, run: Run
) -> None:
    _, b = build(tmp_path)
    for folder in (b, b / "private"):
        folder.chmod(0o2775)

    assert run().status == "done"

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (b, b / "private")}
    assert modes == {"b": 0o2775, "private": 0o2775}
    assert stat.S_IMODE((b / "ours").stat().st_mode) == 0o2777


def test_the_acl_of_a_folder_that_the_target_had_stays(tmp_path: Path, run: Run) -> None:
    a, b = build(tmp_path)
    if not keeps_attributes(tmp_path):
        pytest.skip("the file system of the temporary folder keeps no attributes")
    for name in (ACCESS, DEFAULT):
        os.setxattr(a / "private", name, SHARED)
        os.setxattr(a / "ours", name, SHARED)
    os.setxattr(a / "private", "user.show", b"one")

    assert run(xattrs=True).status == "done"

    assert os.listxattr(b / "private") == ["user.show"]
    assert {ACCESS, DEFAULT} <= set(os.listxattr(b / "ours"))
    assert mode(b / "private") == 0o700


def test_a_resumed_publishing_knows_which_folders_the_target_had(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    _, b = build(tmp_path)
    plant(kill_once(tmp_path))
    with pytest.raises(engine.AgentLost):
        run(resume=True)
    assert (b / "ours").is_dir()

    report = run(resume=True, attempt=2)

    assert report.status == "done"
    assert (mode(b / "ours"), mode(b / "private"), mode(b)) == (0o777, 0o700, 0o711)
    assert [name for name in os.listdir(b) if name.startswith(".")] == []


@ROOT
def test_a_folder_that_another_user_makes_between_two_attempts_keeps_its_mode(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    a, b = build(tmp_path)
    put(a / "zz/new")
    (a / "zz").chmod(0o777)
    plant(kill_once(tmp_path))
    with pytest.raises(engine.AgentLost):
        run(resume=True)
    (b / "zz").mkdir(mode=0o700)
    give_to_another(b / "zz")

    report = run(resume=True, attempt=2)

    assert report.status == "done"
    assert (mode(b / "zz"), mode(b / "ours")) == (0o700, 0o777)


def test_a_folder_of_a_killed_publishing_is_open_to_others_as_the_umask_allows(
    tmp_path: Path, run: Run, plant: Plant
) -> None:
    _, b = build(tmp_path)
    plant(kill_once(tmp_path))
    with pytest.raises(engine.EngineError):
        run()

    assert mode(b / "ours") == 0o755 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask
