"""Another user, who may write at the target, puts something else in a place while a transfer runs.

Each test does in the agent, at one moment, what such a user does in a race.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import HardLinks, Mode, OnConflict
from engine.agent.digests import digest_file
from engine.agent.target.publish.opened_folders import OpenedFolders
from engine.agent.tree import Tree
from engine.agent.wire import FILE, Entry
from tests.engine.plain import mode
from tests.rig.lying import Lie
from tests.rig.needs import needs_root
from tests.rig.transfers import Run

OTHER = 65_533

#: At the end of a module of the agent: `_act()` comes before a call of a function of it, once; it
#: is False if the time has not come.
BEFORE = """
def _before(owner, name):
    call, done = getattr(owner, name) if owner else globals()[name], []
    def acting(*args, **kwargs):
        if not done and _act() is not False:
            done.append(1)
        return call(*args, **kwargs)
    if owner:
        setattr(owner, name, acting)
    else:
        globals()[name] = acting
"""


def swap(place: Path, other: Path) -> str:
    """Code of `_act` that puts another entry in the place of one."""
    return f"""
def _act():
    import os
    if not os.path.lexists({str(place)!r}):
        return False
    os.rename({str(place)!r}, {str(place) + ".aside"!r})
    os.rename({str(other)!r}, {str(place)!r})
"""


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory at b/sub/mnt."""
    folder = tmp_path / "b" / "sub" / "mnt"
    folder.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "ketter-test", folder]
    subprocess.run(words, check=True)
    yield folder
    for place in (tmp_path / "b" / "sub.aside" / "mnt", folder):
        if os.path.ismount(place):
            subprocess.run(["umount", place], check=True)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"genuine {name}".encode())
        os.utime(root / name, ns=(10**18, 10**18))


@needs_root
@pytest.mark.parametrize("back", [False, True])
def test_a_folder_above_a_mount_that_is_renamed_away_loses_nothing(
    tmp_path: Path, run: Run, lie: Lie, mount: Path, back: bool
) -> None:
    write(tmp_path / "a", "sub/mnt/x1", "sub/mnt/deep/x2", "sub/y", "z")
    sub = str(tmp_path / "b" / "sub")
    code = f"""
def _act():
    import os
    os.rename({sub!r}, {sub + ".aside"!r})
{BEFORE}
_before(Publisher, "_place")
"""
    and_back = f"""
def _act():
    os.rename({sub!r}, {sub + ".new"!r})
    os.rename({sub + ".aside"!r}, {sub!r})
{BEFORE}
_before(None, "clear")
"""
    lie(target_publish_publisher=code, **({"target_staging_grafts": and_back} if back else {}))

    report = run(mode=Mode.MOVE)

    found = {path.name: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    there = {name for name in ("x1", "x2", "y", "z") if name in found}
    kept = {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert there | kept == {"x1", "x2", "y", "z"}
    assert report.status == "done" or kept
    assert all(data.startswith(b"genuine") for data in found.values())


@needs_root
def test_the_clean_up_of_a_part_removes_no_other_folder_of_its_name(
    tmp_path: Path, run: Run, lie: Lie, mount: Path
) -> None:
    write(tmp_path / "a", "sub/mnt/x1")
    (mount / "private").mkdir(0o700)
    write(mount / "private", "keep", "deep/keep2")
    part = mount / ".ketter-test.part"
    lie(target_staging_grafts=swap(part, mount / "private") + BEFORE + '_before(None, "clear")\n')

    report = run()

    assert report.status == "done"
    assert {path.name for path in part.rglob("*")} == {"keep", "deep", "keep2"}


@pytest.mark.parametrize("place", ["aaa", "aaa/inner"])
def test_a_folder_that_took_the_place_of_a_published_one_keeps_its_mode(
    tmp_path: Path, run: Run, lie: Lie, place: str
) -> None:
    write(tmp_path / "a", f"{place}/x1")
    for folder in (tmp_path / "a").rglob("*"):
        folder.chmod(0o777)
    private = tmp_path / "b" / "private"
    private.mkdir(parents=True)
    (private / "inner").mkdir(mode=0o700)
    private.chmod(0o700)
    (tmp_path / "b").chmod(0o777)
    taken = tmp_path / "b" / "aaa"
    lie(
        target_publish_folders=swap(taken, private) + BEFORE + '_before(FolderFinisher, "finish")\n'
    )

    run()

    assert mode(taken) == 0o700
    assert mode(taken / "inner") == 0o700


def test_a_folder_that_others_may_write_to_is_open_only_once_all_in_it_are_done(
    tmp_path: Path, run: Run, lie: Lie
) -> None:
    """Else another one could take the place of a folder in it that gets its mode later."""
    for name in ("wide/closed", "wide/deep/wide", "wide/plain"):
        write(tmp_path / "a", f"{name}/x")
    modes = {"wide/closed": 0o555, "wide/deep/wide": 0o777, "wide/deep": 0o775, "wide": 0o777}
    for name, bits in modes.items():
        (tmp_path / "a" / name).chmod(bits)
    log = tmp_path / "log"
    lie(
        target_publish_folders=f"""
_give, _set = give, set_mode
def seen(fd):
    with open({str(log)!r}, "a") as file:
        name = os.readlink("/proc/self/fd/%d" % fd).partition("/b/")[2]
        file.write("%s %o\\n" % (name, os.fstat(fd).st_mode & 0o777))
def give(fd, *args):
    _give(fd, *args)
    seen(fd)
def set_mode(fd, mode):
    _set(fd, mode)
    seen(fd)
"""
    )

    run()

    steps = [line.rsplit(" ", 1) for line in log.read_text().splitlines() if line[0] != " "]
    opened = [number for number, (_, bits) in enumerate(steps) if int(bits, 8) & 0o022]
    given = {name: number for number, (name, _) in enumerate(steps) if number not in opened}
    assert max(given.values()) < min(opened)
    assert [steps[number][0] for number in opened] == ["wide/deep/wide", "wide/deep", "wide"]
    assert {name: mode(tmp_path / "b" / name) for name in modes} == modes


def test_a_folder_below_one_that_others_may_replace_keeps_its_mode(
    tmp_path: Path, run: Run, lie: Lie
) -> None:
    write(tmp_path / "a", "open/mid/new/f")
    mid, other = tmp_path / "b" / "open" / "mid", tmp_path / "b" / "open" / "other"
    mid.mkdir(parents=True)
    (other / "new").mkdir(parents=True)
    (other / "new").chmod(0o700)
    mid.parent.chmod(0o777)
    code = swap(mid, other) + BEFORE
    lie(target_publish_folders=f"{code}\n_before(FolderFinisher, 'finish')\n")

    run()

    assert mode(mid / "new") == 0o700


def test_a_folder_that_took_the_place_of_one_that_is_opened_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "t"
    for name in ("closed", "private"):
        (target / name).mkdir(parents=True)
    (target / "closed").chmod(0o555)
    (target / "private").chmod(0o700)
    (tmp_path / "staging").mkdir(mode=0o700)
    tree, staging = (Tree(os.open(path, os.O_RDONLY)) for path in (target, tmp_path / "staging"))
    with OpenedFolders(tree, staging.fd) as opened:
        opened.admit("closed")
        tree.forget()
        (target / "closed").rename(target / "aside")
        (target / "private").rename(target / "closed")
        opened.open()
        assert mode(target / "closed") == 0o700
        assert list(opened.refused) == ["closed"]

    assert mode(target / "closed") == 0o700
    tree.close()
    staging.close()


@pytest.mark.parametrize("how", [Mode.COPY, Mode.MOVE])
def test_a_file_that_took_the_place_of_one_that_was_there_keeps_its_mode(
    tmp_path: Path, run: Run, lie: Lie, how: Mode
) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, "pub")
    (tmp_path / "a" / "pub").chmod(0o644)
    (tmp_path / "b" / "pub").chmod(0o600)
    secret = tmp_path / "b" / "secret"
    secret.write_bytes(b"private pub")
    secret.chmod(0o600)
    lie(
        target_publish_modes=swap(tmp_path / "b" / "pub", secret)
        + BEFORE
        + '_before(None, "adjust")\n'
    )

    run(mode=how, on_conflict=OnConflict.OVERWRITE)

    assert (tmp_path / "b" / "pub").read_bytes() == b"private pub"
    assert mode(tmp_path / "b" / "pub") == 0o600


@needs_root
def test_another_users_file_gets_no_second_name(tmp_path: Path, run: Run) -> None:
    """Its owner could change what stands under that name, in a folder that is closed to him."""
    write(tmp_path / "a", "aatt/a")
    (tmp_path / "a" / "safe").mkdir()
    os.link(tmp_path / "a" / "aatt" / "a", tmp_path / "a" / "safe" / "b")
    write(tmp_path / "b", "aatt/a")
    (tmp_path / "b" / "aatt" / "a").write_bytes(b"evil... aatt/a")
    os.utime(tmp_path / "b" / "aatt" / "a", ns=(10**18, 10**18))
    os.chown(tmp_path / "b" / "aatt" / "a", OTHER, OTHER)

    report = run(hard_links=HardLinks.KEEP)

    safe = tmp_path / "b" / "safe" / "b"
    assert report.status == "done"
    assert (safe.read_bytes(), safe.stat().st_nlink) == (b"genuine aatt/a", 1)


@needs_root
def test_a_second_name_on_another_disk_is_of_the_file_that_was_copied(
    tmp_path: Path, run: Run, lie: Lie, mount: Path
) -> None:
    write(tmp_path / "a", "sub/mnt/a")
    os.link(tmp_path / "a/sub/mnt/a", tmp_path / "a/sub/mnt/b")
    evil = mount / "evil"
    (mount / ".ketter-test.part").mkdir()  # So that entries are copied there.
    os.chown(mount / ".ketter-test.part", OTHER, OTHER)
    evil.write_bytes(b"evil")
    lie(target_publish_across=swap(mount / "a", evil) + BEFORE + '_before(Across, "_link")\n')

    run(hard_links=HardLinks.KEEP, mode=Mode.MOVE)

    assert (mount / "b").read_bytes() == b"genuine sub/mnt/a"


@pytest.mark.parametrize("size", [0, 5])
def test_a_digest_reads_no_more_than_a_file_had(tmp_path: Path, size: int) -> None:
    """Its owner may make it longer: a hole of exabytes has no end."""
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 50)
    tree = Tree(os.open(tmp_path, os.O_RDONLY))
    try:
        with pytest.raises(OSError, match="longer"):
            digest_file(tree, Entry("f", FILE, size, 0, 0, 0), lambda _: None, medium=False)
    finally:
        tree.close()


def test_a_digest_of_a_file_of_that_size_is_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"frames")
    tree = Tree(os.open(tmp_path, os.O_RDONLY))
    try:
        entry = Entry("f", FILE, 6, 0, stat.S_IFREG, 0)
        found = digest_file(tree, entry, lambda _: None, medium=False)
    finally:
        tree.close()
    assert found == hashlib.sha256(b"frames").digest()


def test_a_folder_that_others_make_in_the_last_moment_is_entered_and_gets_its_time(
    tmp_path: Path, run: Run, lie: Lie
) -> None:
    """It is not taken for one that was replaced."""
    write(tmp_path / "a", "aaa/x1")
    os.utime(tmp_path / "a" / "aaa", ns=(7, 7))
    (tmp_path / "b").mkdir(mode=0o777)
    (tmp_path / "b").chmod(0o777)
    theirs = str(tmp_path / "b" / "aaa")
    code = f"""
def _act():
    import os
    os.mkdir({theirs!r}, 0o750)
{BEFORE}
_before(Publisher, "_move")
"""
    lie(target_publish_publisher=code)

    report = run()

    assert report.status == "done"
    assert (tmp_path / "b" / "aaa" / "x1").read_bytes() == b"genuine aaa/x1"
    assert mode(tmp_path / "b" / "aaa") == 0o750
    assert (tmp_path / "b" / "aaa").stat().st_mtime_ns == 7
