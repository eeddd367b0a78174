"""The hard tree and its comparison, held against tools that are not ours."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig.hard_tree import (
    above_modes,
    acl_support,
    assert_same,
    build_hard,
    describe,
    differences,
    remove_hard,
    walk,
    xattr_support,
)
from tests.rig.project import PROJECT


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose a and b are removed afterwards: pytest would leave them lying about."""
    yield tmp_path
    for name in "ab":
        remove_hard(tmp_path / name)


@pytest.fixture
def shallow(place: Path) -> Path:
    """The hard tree but for the paths that no tool carries: cp, rsync and tar all stop at 4096."""
    build_hard(place / "a")
    with unnoticed(place / "a"):
        remove_hard(place / "a" / "deep")
    if not above_modes(place):
        # Nor does any give attributes to a file that is read-only already, unless root runs it.
        (place / "a" / "attributes" / "read-only").chmod(0o644)
    return place / "a"


@pytest.fixture
def twins(shallow: Path) -> tuple[Path, Path]:
    """The hard tree and what `cp -a` makes of it."""
    twin = shallow.with_name("b")
    copy("cp", "-a", shallow, twin)
    return shallow, twin


@contextmanager
def unnoticed(path: Path) -> Iterator[None]:
    """Let it keep its time, so that what is done to it or in it is the only change."""
    found = path.stat()
    yield
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def copy(*command: str | Path) -> None:
    """Run a tool that copies; skip where it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_the_same_seed_builds_the_same_hard_tree(place: Path) -> None:
    build_hard(place / "a")
    first = describe(place / "a", xattrs=True)
    remove_hard(place / "a")

    build_hard(place / "a")
    assert_same(first, place / "a")
    remove_hard(place / "a")

    build_hard(place / "a", seed=2)
    with pytest.raises(AssertionError, match="sha256"):
        assert_same(first, place / "a")


def test_the_hard_tree_contains_every_difficulty_that_it_promises(place: Path) -> None:
    build_hard(place / "a")
    found = describe(place / "a", xattrs=True)
    names = {path.rpartition(b"/")[2] for path in found}

    assert {facts.kind for facts in found.values()} >= {"file", "folder", "link", "pipe", "socket"}
    assert max(map(len, found)) > 4096
    assert {b"Icon\r", b"A.mov", b"a.mov", b"a" * 255, b"\xff" * 255} <= names
    assert {len(facts.hard_links) for facts in found.values()} == {0, 1, 2}
    assert max(len(facts.link) for facts in found.values()) == 4095
    times = [facts.mtime_ns for facts in found.values()]
    assert (min(times), max(times)) == (-(2**31) * 10**9, 7_258_118_400_000_000_004)
    assert {f.mode for f in found.values()} >= {0o4755, 0o2755, 0o1777, 0o7777, 0o555, 0o444}
    for path, facts in found.items():
        if path.startswith(b"holes/"):
            assert facts.allocated < facts.size
    kinds = {name.split(b".")[0] for facts in found.values() for name, _ in facts.xattrs}
    assert (b"user" in kinds) is xattr_support(place)
    assert (b"system" in kinds) is acl_support(place)


@pytest.mark.slow
@pytest.mark.xdist_group("large")
def test_the_hard_tree_has_a_huge_file_and_a_crowded_folder_where_asked(place: Path) -> None:
    build_hard(place / "a", large=True, many=True)

    assert len(os.listdir(place / "a" / "many")) > 65_535
    huge = (place / "a" / "large" / "over 4 GiB").stat()
    assert huge.st_size > 1 << 32
    assert huge.st_blocks * 512 < 1 << 20


@pytest.mark.parametrize("command", ["cp -a a b", "rsync -aHAX a/ b/"])
def test_the_comparison_finds_no_difference_in_a_copy_by_another_tool(
    shallow: Path, command: str
) -> None:
    tool, options, source, target = command.split()

    copy(tool, options, f"{shallow.parent}/{source}", f"{shallow.parent}/{target}")

    assert_same(shallow, shallow.with_name("b"))


def test_the_comparison_finds_a_difference_in_a_path_of_over_4096_bytes(place: Path) -> None:
    for name in "ab":
        build_hard(place / name)
        with unnoticed(place / name / "links"):
            (place / name / "links" / "absolute").unlink()  # It leads into its own tree.
    assert_same(place / "a", place / "b")

    top = os.open(place / "b", os.O_RDONLY)
    for folder, last, path, found in walk(top):
        if len(path) > 4096 and last == b"leaf":
            os.utime(last, ns=(0, found.st_mtime_ns + 1), dir_fd=folder)
    os.close(top)

    assert len(differences(place / "a", place / "b")) == 1


def test_the_comparison_ignores_only_the_facts_that_are_named(twins: tuple[Path, Path]) -> None:
    first, second = twins
    os.utime(second / "mixed" / "tool.sh", ns=(5, 5))
    (second / "mixed" / "zero.bin").chmod(0o644)

    with pytest.raises(AssertionError, match=r"tool\.sh': mtime_ns is \d+ against 5"):
        assert_same(first, second, ignore=["mode"])
    with pytest.raises(AssertionError, match=r"zero\.bin': mode is 0600 against 0644"):
        assert_same(first, second, ignore=["mtime_ns"])
    assert_same(first, second, ignore=["mode", "mtime_ns"])
    with pytest.raises(ValueError, match="no such fact: colour"):
        assert_same(first, second, ignore=["colour"])


def test_the_comparison_mentions_a_filled_hole_only_beside_a_difference(
    twins: tuple[Path, Path],
) -> None:
    first, second = twins
    filled = second / "holes" / "all of it"
    times = filled.stat()
    filled.write_bytes(filled.read_bytes())
    os.utime(filled, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert_same(first, second)
    (second / "mixed" / "zero.bin").chmod(0o644)
    with pytest.raises(AssertionError, match=r"bytes allocated against"):
        assert_same(first, second)


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """Put something else in an entry's place, with its time."""
    found = path.lstat()
    with unnoticed(path.parent):
        path.unlink()
        yield
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def _later(path: Path) -> None:
    at = path.lstat().st_mtime_ns + 1
    os.utime(path, ns=(at, at), follow_symlinks=False)


def _spoil(path: Path) -> None:
    with unnoticed(path), path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


def _lengthen(path: Path) -> None:
    with unnoticed(path), path.open("ab") as file:
        file.write(b"\0")


def _lead_elsewhere(link: Path) -> None:
    with replaced(link):
        link.symlink_to("filf")


def _separate(path: Path) -> None:
    content = path.read_bytes()
    with replaced(path):
        path.write_bytes(content)


def _become_another_device(path: Path) -> None:
    with replaced(path):
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def _become_a_socket(path: Path) -> None:
    mode = path.stat().st_mode
    with replaced(path):
        os.mknod(path, stat.S_IFSOCK | stat.S_IMODE(mode))
        path.chmod(stat.S_IMODE(mode))


def _add(path: Path) -> None:
    with unnoticed(path.parent):
        path.touch()


def _remove(path: Path) -> None:
    with unnoticed(path.parent):
        path.rmdir()


def _compose(path: Path) -> None:
    with unnoticed(path.parent):
        path.rename(path.with_name("nfd \u00e9.txt"))


#: What is changed, where, how, and the words that tell of it, one for each difference.
MUTATIONS: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "a byte": ("sizes/8388608.bin", _spoil, ("sha256",)),
    "a byte in a hole": ("holes/all of it", _spoil, ("sha256",)),
    "a byte more": ("sizes/1.bin", _lengthen, ("size", "sha256")),
    "a nanosecond": ("times/1969", _later, ("mtime_ns",)),
    "a folder's nanosecond": ("folders/empty", _later, ("mtime_ns",)),
    "a link's nanosecond": ("links/broken", _later, ("mtime_ns",)),
    "the top's nanosecond": ("", _later, ("mtime_ns",)),
    "the setuid bit": ("modes/file 4755", lambda p: p.chmod(0o755), ("mode",)),
    "a folder's sticky bit": ("modes/folder 1777", lambda p: p.chmod(0o777), ("mode",)),
    "a link's target": ("links/relative", _lead_elsewhere, ("link",)),
    "a hard link lost": ("hard/one/empty", _separate, ("hard_links", "hard_links")),
    "another device": ("special/device", _become_another_device, ("device",)),
    "another kind": ("special/pipe", _become_a_socket, ("kind",)),
    "one more": ("folders/empty/more", _add, ("only in the second",)),
    "one less": ("folders/nested/empty/folders", _remove, ("only in the first",)),
    "another form of a letter": ("mixed/nfd e\u0301.txt", _compose, ("the first", "the second")),
    "an attribute": (
        "attributes/file",
        lambda p: os.setxattr(p, b"user.ketter.empty", b"\0"),
        ("xattrs",),
    ),
    "an attribute lost": (
        "attributes/folder",
        lambda p: os.removexattr(p, b"user.ketter.empty"),
        ("xattrs",),
    ),
    "an access list": (
        "attributes/file",
        lambda p: copy("setfacl", "-n", "-m", "u:4321:r", p),
        ("xattrs",),
    ),
    "a default access list": (
        "attributes/inherits",
        lambda p: copy("setfacl", "-d", "-m", "u:4321:r", p),
        ("xattrs",),
    ),
}


@pytest.mark.parametrize("what", MUTATIONS)
def test_the_comparison_finds_each_kind_of_change(twins: tuple[Path, Path], what: str) -> None:
    first, second = twins
    path, mutate, told = MUTATIONS[what]
    if "device" in what and not (first / path).exists():
        pytest.skip("only root can make a device")
    if "attribute" in what and not xattr_support(first):
        pytest.skip("this file system takes no attributes")
    if "access" in what and not acl_support(first):
        pytest.skip("setfacl is not installed, or this file system takes no access lists")

    mutate(second / path)

    lines = differences(first, second)
    assert len(lines) == len(told), lines
    for line, word in zip(lines, told, strict=True):
        assert word in line
    with pytest.raises(AssertionError, match=f"differ in {len(told)} places"):
        assert_same(first, second)


def test_an_ordinary_user_can_build_and_remove_the_hard_tree(place: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.rig import hard_tree as hard; "
        "here = Path(sys.argv[1]); hard.build_hard(here); print(len(hard.describe(here))); "
        "hard.remove_hard(here)"
    )
    # Without any capability root is nobody special, except that it owns what is there.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if above_modes(place) else []
    done = subprocess.run(
        [*plain, sys.executable, "-c", code, str(place / "a")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
    assert not (place / "a").exists()
