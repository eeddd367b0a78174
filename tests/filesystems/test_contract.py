"""One contract for every file system, as the source and as the target of a transfer.

The tests come to root alone, who can mount; `deploy/test.sh` installs what they need. What a
kind keeps, and what a transfer says of the rest, stands in `kinds`.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from engine import OnConflict, display_path
from tests.filesystems.kinds import KINDS, SOURCE, TARGET, Kind, missing, mounted
from tests.filesystems.places import MIB, Place, build
from tests.filesystems.striking import POINTS
from tests.rig.facts import describe, walk
from tests.rig.hard_tree import build_hard, remove_hard
from tests.rig.interrupted import staged
from tests.rig.waiting import wait_until


def _rows() -> Iterator[Any]:
    for number, (name, kind) in enumerate(KINDS.items()):
        for role in kind.roles:
            marks = [pytest.mark.xdist_group(f"mounts-{number % 6}")]
            yield pytest.param((name, role), id=f"{name}-{role}".replace(" ", "_"), marks=marks)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=_rows())
def stage(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, str, Path, Path]]:
    """A file system, mounted once for all tests of one kind in one role."""
    name, role = request.param
    kind = KINDS[name]
    if reason := missing(kind):
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ketter-disk-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # The user as which root acts passes through.
        with mounted(kind, folder, lambda back: build(back / "a", kind)) as at:
            yield kind, role, at, folder


@pytest.fixture
def place(stage: tuple[Kind, str, Path, Path], tmp_path: Path) -> Iterator[Place]:
    """A place on that file system, emptied after the test."""
    kind, role, at, folder = stage
    plain = folder / "plain"
    with ExitStack() as stack:
        stack.callback(_empty, plain)
        if not kind.read_only:
            stack.callback(_empty, at / "ours")
        below = stack.enter_context(ExitStack())
        yield Place(kind, role, at, plain, below)


def _empty(folder: Path) -> None:
    for below in ("a", "b"):
        remove_hard(folder / below)
    shutil.rmtree(folder)


def conflicts(place: Place) -> None:
    """A tree whose file `older` is older at the target, `newer` newer, `new` not there."""
    for end, words, at in ((place.source, b"source", 10**9), (place.target, b"target", 2 * 10**9)):
        end.mkdir(parents=True, exist_ok=True)
        for name in ("older", "newer"):
            (end / name).write_bytes(words + b" " * len(words) * (end == place.target))
            seconds = at if name == "newer" else 3 * 10**9 - at
            os.utime(end / name, ns=(seconds * 10**9 // 2, seconds * 10**9 // 2))
    (place.source / "new").write_bytes(b"new")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected_status(place: Place) -> int:
    """3 where the target cannot hold the symlink, or the source gives nothing up."""
    return 3 if place.role == TARGET and not place.kind.symlinks else 0


def put_hard_tree(at: Path, place: Place) -> None:
    """Make a hard tree there, as far as that file system holds it; without its largest files."""
    with tempfile.TemporaryDirectory(prefix="ketter-hard-") as spare:
        made = Path(spare) / "hard"
        try:
            build_hard(made, special=False)
            for size in ("4", "8"):
                for file in (made / "sizes").glob(f"{size}*.bin"):
                    file.unlink()
            if "mount.exfat-fuse" in place.kind.programs and place.role == SOURCE:
                shutil.rmtree(made / "names")  # It dies of some that it has accepted.
            subprocess.run(["cp", "-a", str(made), str(at)], capture_output=True, check=False)
        finally:
            remove_hard(made)
    assert len(names(at)) > 100


def names(root: Path) -> dict[bytes, int]:
    """Everything below a folder, however deep, with its kind."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {path: stat.S_IFMT(found.st_mode) for _, _, path, found in walk(top)}
    finally:
        os.close(top)


def is_named(path: bytes, failed: set[str]) -> bool:
    """Whether an entry, or a folder that it lies in, was named as not delivered."""
    names = os.fsdecode(path).split("/")
    ways = ("/".join(names[:count]) for count in range(1, len(names) + 1))
    return any(display_path(way) in failed for way in ways)


def test_a_copy_arrives_and_the_same_again_sends_nothing(place: Place) -> None:
    before = place.build()
    manifest = place.other / "manifest"

    first = place.run("--manifest", manifest)
    again = place.run()

    assert first.status == expected_status(place), first
    place.assert_arrived(before)
    place.assert_no_debris()
    if place.role == TARGET:
        assert {code: first.codes[code] for code in place.kind.says} == dict.fromkeys(
            place.kind.says, 1
        ), first
    assert again.status == expected_status(place), again
    assert (again.result["files"], again.result["bytes"]) == (0, 0), again
    assert place.verify(manifest, place.target).status == 0


def test_a_dry_run_changes_nothing_and_foretells_the_same_again(place: Place) -> None:
    place.build()

    planned = place.run("--dry-run")
    names = os.listdir(place.base)
    done = place.run()
    after = place.run("--dry-run")

    assert "b" not in names or place.kind.below
    assert (planned.status, after.status) == (0, 0), (planned, after)
    assert done.status == expected_status(place), done
    if place.kind.grain or place.role == SOURCE:  # Else nothing is known without a look inside.
        assert after.result["plan"]["conflicts"] == 0, after


def test_a_move_proves_what_arrives_and_empties_the_source(place: Place) -> None:
    before = place.build()

    done = place.run("--mode", "move")

    place.assert_arrived(before)
    place.assert_no_debris()
    if place.kind.read_only:
        assert done.status == 3, done
        return
    assert done.status == expected_status(place), done
    if expected_status(place) == 0:
        place.assert_source_is_empty()
    else:
        assert done.failed == {"link"}
        assert os.listdir(place.source) == ["link"]


def test_what_was_read_back_arrives_over_several_streams(place: Place) -> None:
    before = place.build()

    done = place.run("--verify", "readback", "--streams", "3", "--strategy", "files")

    assert done.status == expected_status(place), done
    place.assert_arrived(before)
    place.assert_no_debris()


@pytest.mark.parametrize("policy", OnConflict)
def test_each_policy_treats_what_is_different(place: Place, policy: OnConflict) -> None:
    conflicts(place)
    ours, theirs = files(place.source), files(place.target)

    done = place.run("--on-conflict", policy.value)

    wanted = {
        OnConflict.FAIL: theirs,
        OnConflict.SKIP: {**theirs, "new": b"new"},
        OnConflict.OVERWRITE: ours,
        OnConflict.OVERWRITE_OLDER: {**ours, "newer": theirs["newer"]},
        OnConflict.KEEP_BOTH: {
            **theirs,
            "new": b"new",
            **{f"{name} (2)": ours[name] for name in ("older", "newer")},
        },
    }[policy]
    assert (done.status, files(place.target)) == (policy is OnConflict.FAIL, wanted), done
    place.assert_no_debris()


def test_one_archive_is_delivered_and_known_again(place: Place) -> None:
    place.build()

    first = place.run("--strategy", "archive")
    again = place.run("--strategy", "archive")

    assert (first.status, again.status) == (0, 0), (first, again)
    assert os.listdir(place.target) == ["a.zip"] or place.kind.below
    assert again.codes["ARCHIVE_THERE"] == 1
    place.assert_no_debris()


def test_a_cancelled_copy_leaves_nothing(place: Place) -> None:
    place.build(large=0 if place.kind.read_only else 8 * MIB)
    before = describe(place.base)
    place.settle()
    command = place.start("--bwlimit", "100K" if place.kind.read_only else "2M")
    wait_until(lambda: staged(place.target) > 0)

    command.send_signal(signal.SIGTERM)
    command.communicate(timeout=60)

    assert command.returncode == 130
    wait_until(lambda: set(describe(place.base)) == set(before))


@pytest.mark.parametrize("point", POINTS)
def test_a_transfer_that_was_killed_is_completed_by_the_next_run(place: Place, point: str) -> None:
    before = place.build()
    options = ["--mode", "move", "--resume", "--strategy", "files"]
    place.settle()

    killed = place.run(*options, point=point)
    done = place.run(*options)

    assert killed.status in (-signal.SIGKILL, 1), killed
    assert done.status == (3 if place.kind.read_only else expected_status(place)), done
    place.assert_arrived(before)
    place.assert_no_debris()
    if done.status == 0:
        place.assert_source_is_empty()


def test_a_hard_tree_arrives_or_each_entry_is_named(place: Place) -> None:
    place.make_below()
    place.source.mkdir(exist_ok=True)
    put_hard_tree(place.source / "hard", place)
    place.give_away()
    before = names(place.source)

    first = place.run()
    there = names(place.target)
    again = place.run()

    lost = {path for path in before if path not in there}
    unnamed = {path for path in lost if not is_named(path, first.failed)}
    assert (first.status, not unnamed) == (3 if lost else 0, True), (unnamed, first)
    # A folder of mode 0000 cannot be looked into, a second time, by who is not above modes.
    assert again.status in (first.status, 3 if "SQUASH" in place.kind.words else 0), again
    assert again.result["files"] == len(names(place.target).keys() - there.keys()), again
    place.assert_no_debris()
