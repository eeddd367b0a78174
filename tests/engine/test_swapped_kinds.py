"""What another user puts in place of a file or folder while an agent is at work on it."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.agent import digests, write_access
from engine.agent.context import Context
from engine.agent.source.paced_writer import FrameWriter
from engine.agent.source.remove import remove_entries
from engine.agent.source.sender import Sender
from engine.agent.target import locks
from engine.agent.target.archive_file import ArchiveFile
from engine.agent.target.staged_files import check_entry
from engine.agent.target.staging import names
from engine.agent.tree import Tree, entry_of, remove_open
from engine.agent.wire import AgentError, Entry, pack_entries

OTHER = ".ketter-other.part"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(os.open(tmp_path, os.O_RDONLY), str(tmp_path))
    yield tree
    tree.close()


def scanned(tree: Tree, path: str) -> Entry:
    """The entry that a scan finds, on a file system that keeps no inode numbers."""
    entry = entry_of(*tree.parent(path), path)
    assert entry
    return entry._replace(ino=0)


def pipe(path: Path, mtime_ns: int) -> None:
    path.unlink()
    os.mkfifo(path)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def device(path: Path, mtime_ns: int) -> None:
    path.unlink()
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))  # As /dev/zero: it has no end.
    except PermissionError:
        pytest.skip("only root makes devices")
    os.utime(path, ns=(mtime_ns, mtime_ns))


KINDS = [pipe, device]
Swap = Callable[[Path, int], None]


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Feeds a pipe without end, as its owner can, until the test is over."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def feed(path: Path) -> None:
        def write() -> None:
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            while not over.wait(0.001):
                try:
                    os.write(fd, bytes(4096))
                except BlockingIOError:
                    continue
            os.close(fd)

        if path.is_fifo():
            threads.append(threading.Thread(target=write))
            threads[-1].start()

    yield feed
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("swap", KINDS)
@pytest.mark.parametrize("size", [0, 5])
def test_the_digest_of_what_is_no_plain_file_is_missing_at_once(
    tree: Tree, tmp_path: Path, swap: Swap, size: int, fed: Callable[[Path], None]
) -> None:
    (tmp_path / "f").write_bytes(b"x" * size)
    entry = scanned(tree, "f")
    swap(tmp_path / "f", entry.mtime_ns)
    fed(tmp_path / "f")
    began = time.monotonic()
    context = Context()
    context.read = lambda size: _enough(began)  # type: ignore[method-assign]

    _, found, gone = digests.digests_of(context, tree, pack_entries([entry]))

    assert found == bytes(32)
    assert gone == []


def _enough(began: float) -> None:
    assert time.monotonic() - began < 1.0, "it reads without end"


@pytest.mark.parametrize("swap", KINDS)
@pytest.mark.parametrize("kind", ["file", "zip"])
def test_a_source_does_not_send_what_is_no_plain_file(
    tree: Tree, tmp_path: Path, swap: Swap, kind: str, fed: Callable[[Path], None]
) -> None:
    (tmp_path / "f").touch()
    entry = scanned(tree, "f")
    swap(tmp_path / "f", entry.mtime_ns)
    fed(tmp_path / "f")
    with open(os.devnull, "wb") as nowhere:
        sender = Sender(tree, FrameWriter(nowhere.fileno(), 0))
        sender.send({"kind": kind, "parcel": 1}, pack_entries([entry]))

    assert list(sender.errors) == ["0"]


def test_a_move_keeps_an_entry_of_another_kind_than_the_one_that_was_sent(
    tree: Tree, tmp_path: Path
) -> None:
    (tmp_path / "l").symlink_to("a")
    entry = scanned(tree, "l")
    (tmp_path / "l").unlink()
    (tmp_path / "l").write_text("precious")
    os.utime(tmp_path / "l", ns=(entry.mtime_ns, entry.mtime_ns))

    removed, kept = remove_entries(tree, [entry])

    assert (removed, [code for _, code, _ in kept]) == (0, ["SOURCE_CHANGED"])
    assert (tmp_path / "l").read_text() == "precious"


# -- another transfer's staging folder ------------------------------------------------


@pytest.mark.parametrize("name", [OTHER, f"{OTHER}/fence", f"a/{OTHER}/x"])
def test_an_archive_does_not_go_into_a_staging_folder(
    tree: Tree, tmp_path: Path, name: str
) -> None:
    with pytest.raises(AgentError, match="a transfer's own folder"):
        ArchiveFile(tree, name, lambda _: None)

    assert list(tmp_path.iterdir()) == []


def test_no_file_of_a_staging_folder_gets_a_further_name() -> None:
    link = Entry("x", "h", 0, 1, 0o644, 1, f"{OTHER}/gate")

    with pytest.raises(AgentError, match="a transfer's own folder"):
        check_entry(link)


# -- folders ------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_folder_that_takes_the_place_of_one_under_removal_stays(
    tmp_path: Path, what: str
) -> None:
    for name in ("old", "precious"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    top, fd = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "old", os.O_RDONLY)
    try:
        (tmp_path / "old").rename(tmp_path / "moved")
        if what == "folder":
            (tmp_path / "precious").rename(tmp_path / "old")
        else:
            (tmp_path / "old").symlink_to("precious")
        remove_open(top, "old", fd)
    finally:
        os.close(top)
        os.close(fd)

    assert (tmp_path / "old" / "file").exists()


def test_another_folder_in_place_of_an_earlier_runs_is_not_emptied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no owners are kept any user may swap them after the look."""
    name = ".ketter-t-1.part"
    (tmp_path / name / name).mkdir(parents=True)
    (tmp_path / name).chmod(0o700)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()

    def swap(folder: int, inner: str) -> bool:
        (tmp_path / name).rename(tmp_path / "moved")
        (tmp_path / "precious").rename(tmp_path / name)
        return locks.is_there(folder, inner)

    monkeypatch.setattr("engine.agent.target.staging.names.is_there", swap)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        names.remove_earlier(fd, "t")
    finally:
        os.close(fd)

    assert (tmp_path / name / "file").exists()


def _enter_writable(folder: int) -> None:
    with write_access.writable(folder):
        pass


@pytest.mark.parametrize("deed", [write_access.recover, _enter_writable])
def test_another_users_folder_is_not_waited_for_whoever_holds_a_lock_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: Callable[[int], None]
) -> None:
    """That user can also give it the time that stands for a folder that is left open."""
    tmp_path.chmod(0o755)
    os.utime(tmp_path, ns=((write_access._MARK + 0o055) * 10**9, 10**18))
    monkeypatch.setattr(write_access, "may", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    folder, held = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    fcntl.flock(held, fcntl.LOCK_EX)
    began = time.monotonic()

    deed(folder)

    assert time.monotonic() - began < 1
    os.close(folder)
    os.close(held)


def test_locks_that_another_user_holds_on_many_folders_cost_some_seconds_in_all(
    tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may read a folder can lock it: a move out of read-only folders goes on."""
    monkeypatch.setattr(write_access, "_PATIENCE", 0.1)
    monkeypatch.setattr(write_access, "_PATIENCE_IN_ALL", 0.5)
    monkeypatch.setattr(write_access, "_waited", [0.0])
    names, held = [f"{number:02}" for number in range(80)], []
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        (tmp_path / name).chmod(0o555)
        held.append(os.open(tmp_path / name, os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_EX)
    # As for a user that is not root.
    monkeypatch.setattr(write_access, "may", lambda fd, _: bool(os.fstat(fd).st_mode & 0o200))
    paths = [f"{name}/file" for name in names]
    entries = [entry for path in paths if (entry := entry_of(*tree.parent(path), path))]
    began = time.monotonic()

    removed, kept = remove_entries(tree, entries)

    took = time.monotonic() - began
    for fd in held:
        os.close(fd)
    assert 0.4 < took < 5  # Without a bound, 8 s.
    assert (removed, kept) == (80, [])
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in names} == {0o555}
    assert write_access._waited[0] < 0.6
