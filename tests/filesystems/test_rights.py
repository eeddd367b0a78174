"""What an ordinary user may not do at either end: each entry is named, all others arrive."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.filesystems import mounts
from tests.filesystems.mounts import STRANGER, run
from tests.filesystems.places import Ended, ended
from tests.rig.project import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mounts-rights")]
#: A group that the ordinary user is in, and that no folder gets by itself.
GROUP = STRANGER + 1
NAMES = [f"f{number}" for number in range(1, 6)]
PARTIAL = 3


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """An ext4 of its own, whose files know flags, and the engine where any user can read it."""
    programs = ("mkfs.ext4", "chattr", "setpriv")
    if reason := mounts.missing(programs):
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ketter-disk-") as made, ExitStack() as stack:
        folder = Path(made)
        folder.chmod(0o755)
        at = folder / "mounted"
        at.mkdir()
        mounts.disk("mkfs.ext4", "-q", "-F")(stack, folder, at, lambda _: None)
        shutil.copytree(PROJECT / "engine", at / "program" / "engine")
        yield at


@pytest.fixture
def tree(disk: Path) -> Iterator[Path]:
    """A folder of the ordinary user's with a source `a`, and a target folder `b`."""
    folder = disk / "tree"
    folder.mkdir()
    for name in "ab":
        (folder / name).mkdir()
    for name in NAMES:
        (folder / "a" / name).write_text(f"new {name}")
    own(folder)
    yield folder
    run("chattr", "-R", "-f", "-i", "-a", folder)
    shutil.rmtree(folder)


def own(*paths: Path) -> None:
    for path in paths:
        run("chown", "-R", f"{STRANGER}:{STRANGER}", path)


def python() -> str:
    """A Python that any user can start."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        # By a shell: what setpriv starts itself may still have root's rights to start it.
        line = ["setpriv", f"--reuid={STRANGER}", "--clear-groups", "sh", "-c", f"{candidate} -V"]
        if subprocess.run(line, capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("there is no Python that an ordinary user can start")


def transfer(tree: Path, *options: str) -> Ended:
    """Transfer a to b as the ordinary user."""
    user = [f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={GROUP}"]
    words = ["--from", tree / "a", "--to", tree / "b", "--json", *options]
    command = subprocess.Popen(
        ["setpriv", *user, python(), "-m", "engine.cli", *map(str, words)],
        cwd=tree.parent / "program",
        env={"PATH": os.environ["PATH"], "HOME": str(tree), "XDG_STATE_HOME": str(tree / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return ended(command)


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def old(folder: Path) -> None:
    """Have the target hold other files of the same names, the ordinary user's."""
    for name in NAMES:
        (folder / name).write_text(f"old file {name}")
    own(folder)


def all_but(name: str) -> dict[str, str]:
    return {one: f"old file {one}" if one == name else f"new {one}" for one in NAMES}


def assert_partial(done: Ended, tree: Path, *names: str) -> None:
    """Those are named, nothing is left behind."""
    assert done.status == PARTIAL, done
    assert {Path(failure["path"]).name for failure in done.result["failures"]} == set(names), done
    assert all(failure["code"] == "PERMISSION_DENIED" for failure in done.result["failures"])
    assert not [name for name in os.listdir(tree / "b") if name.startswith(".ketter")]


def test_the_second_run_delivers_into_read_only_folders_that_the_first_one_made(
    tree: Path,
) -> None:
    inner = tree / "a" / "mod" / "pkg"
    inner.mkdir(parents=True)
    (inner / "one").write_text("1")
    own(tree / "a")
    for folder in (inner, inner.parent):
        folder.chmod(0o555)
    first = transfer(tree)
    inner.chmod(0o755)
    (inner / "two").write_text("2")
    own(inner / "two")
    inner.chmod(0o555)

    second = transfer(tree)

    assert (first.status, second.status) == (0, 0), (first, second)
    assert content(tree / "b" / "mod" / "pkg") == {"one": "1", "two": "2"}
    assert [mode(tree / "b" / path) for path in ("mod", "mod/pkg")] == ["0o555", "0o555"]


@pytest.mark.parametrize("flag", ["+i", "+a"], ids=["immutable", "append-only"])
@pytest.mark.parametrize("move", [False, True], ids=["copy", "move"])
def test_a_file_that_may_not_be_replaced_is_named_and_the_others_arrive(
    tree: Path, flag: str, move: bool
) -> None:
    old(tree / "b")
    run("chattr", flag, tree / "b" / "f3")

    done = transfer(tree, "--on-conflict", "overwrite", *(["--mode", "move"] if move else []))

    assert_partial(done, tree, "f3")
    assert content(tree / "b") == all_but("f3")
    assert content(tree / "a") == ({"f3": "new f3"} if move else {n: f"new {n}" for n in NAMES})


def test_another_users_file_in_a_sticky_folder_is_named_and_the_others_arrive(tree: Path) -> None:
    old(tree / "b")
    (tree / "b").chmod(0o1777)
    os.chown(tree / "b", 0, 0)
    os.chown(tree / "b" / "f3", 0, 0)

    done = transfer(tree, "--on-conflict", "overwrite")

    assert_partial(done, tree, "f3")
    assert content(tree / "b") == all_but("f3")


@pytest.mark.parametrize("how", ["immutable", "another user's"])
def test_what_goes_into_a_closed_folder_is_named_and_the_rest_arrives(tree: Path, how: str) -> None:
    (tree / "a" / "closed").mkdir()
    (tree / "a" / "closed" / "inside").write_text("inside")
    (tree / "b" / "closed").mkdir()
    own(tree / "a", tree / "b")
    if how == "immutable":
        run("chattr", "+i", tree / "b" / "closed")
    else:
        os.chown(tree / "b" / "closed", 0, 0)

    done = transfer(tree)

    assert_partial(done, tree, "inside")
    assert content(tree / "b") == {name: f"new {name}" for name in NAMES}


def test_an_append_only_folder_takes_new_files(tree: Path) -> None:
    (tree / "a" / "logs").mkdir()
    (tree / "a" / "logs" / "new").write_text("new")
    (tree / "b" / "logs").mkdir()
    (tree / "b" / "logs" / "old").write_text("old")
    own(tree / "a", tree / "b")
    run("chattr", "+a", tree / "b" / "logs")

    done = transfer(tree)

    assert done.status == 0, done
    assert content(tree / "b" / "logs") == {"new": "new", "old": "old"}


def test_folders_that_were_there_keep_mode_and_setgid_and_new_ones_inherit_it(tree: Path) -> None:
    for name in ("exists", "new"):
        (tree / "a" / name).mkdir()
        (tree / "a" / name / "file").write_text("new")
    (tree / "b" / "exists").mkdir()
    own(tree / "a", tree / "b")
    for folder in (tree / "b", tree / "b" / "exists"):
        os.chown(folder, STRANGER, GROUP)
        folder.chmod(0o2775)

    done = transfer(tree)

    assert done.status == 0, done
    assert [mode(tree / path) for path in ("b", "b/exists")] == ["0o2775", "0o2775"]
    new = (tree / "b" / "new").stat()
    assert (new.st_mode & stat.S_ISGID, new.st_gid) == (stat.S_ISGID, GROUP)
    assert (tree / "b" / "new" / "file").stat().st_gid == GROUP


def test_a_target_whose_top_may_not_be_written_to_is_refused_before_anything_is_sent(
    tree: Path,
) -> None:
    (tree / "a" / "below").mkdir()
    (tree / "b" / "below").mkdir()
    own(tree / "a", tree / "b")
    os.chown(tree / "b", 0, 0)

    done = transfer(tree)

    assert (done.status, done.result["code"]) == (1, "PERMISSION_DENIED"), done
    assert str(tree / "b") in done.result["message"]
    assert sorted(os.listdir(tree / "b")) == ["below"]


def test_what_may_not_be_read_at_the_source_is_named_and_the_rest_arrives(tree: Path) -> None:
    (tree / "a" / "f3").chmod(0)
    (tree / "a" / "closed").mkdir(mode=0)
    os.chown(tree / "a" / "closed", 0, 0)

    done = transfer(tree)

    assert_partial(done, tree, "f3", "closed")
    assert set(content(tree / "b")) == {*NAMES} - {"f3"}


def test_a_move_leaves_what_may_not_be_removed_and_names_it(tree: Path) -> None:
    run("chattr", "+i", tree / "a" / "f3")
    (tree / "a" / "closed").mkdir()
    (tree / "a" / "closed" / "inside").write_text("inside")
    os.chown(tree / "a" / "closed", 0, 0)

    done = transfer(tree, "--mode", "move")

    assert_partial(done, tree, "f3", "inside")
    assert set(content(tree / "b")) == {*NAMES}
    assert set(content(tree / "a")) == {"f3"}


def test_a_move_from_read_only_folders_of_the_user_empties_them(tree: Path) -> None:
    (tree / "a" / "mod").mkdir()
    (tree / "a" / "mod" / "one").write_text("1")
    own(tree / "a")
    (tree / "a" / "mod").chmod(0o555)

    done = transfer(tree, "--mode", "move")

    assert done.status == 0, done
    assert os.listdir(tree / "a") == []
    assert json.dumps(done.result)


def test_both_ends_lie_below_folders_that_one_may_only_pass_through(tree: Path) -> None:
    """The user may not list the folder above, which is root's."""
    above = tree.stat()
    os.chown(tree, 0, 0)
    (tree / "b" / "state").mkdir()
    (tree / "state").symlink_to("b/state")
    os.lchown(tree / "b" / "state", STRANGER, STRANGER)
    tree.chmod(0o711)
    try:
        done = transfer(tree, "--mode", "move")
    finally:
        os.chown(tree, above.st_uid, above.st_gid)
        (tree / "state").unlink()

    assert (done.status, done.codes) == (0, {})
    assert content(tree / "b") == {name: f"new {name}" for name in NAMES}
    assert os.listdir(tree / "a") == []
