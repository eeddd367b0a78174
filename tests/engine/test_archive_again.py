"""A move as one archive that was stopped while it removed its source, and begins again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, Mode, OnConflict, Phase, Request, SilentObserver, Strategy
from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from engine.agent.target.publish.delivered_archive import announce, recall
from engine.agent.tree import Tree
from engine.agent.wire import FILE, Entry, pack_entries, unpack_entries
from tests.rig.interrupted import staging

FILES = 30
OVERWRITES = (OnConflict.OVERWRITE, OnConflict.OVERWRITE_OLDER)
POLICIES = sorted(set(OnConflict) - set(OVERWRITES))


class Cut(SilentObserver):
    """Loses the connection when the source is about to be removed."""

    def phase(self, phase: Phase) -> None:
        """Lose it."""
        if phase is Phase.REMOVE_SOURCE:
            raise engine.ConnectionLost("the line was cut")


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """A folder of some files, to be moved into an archive."""
    folder = tmp_path / "day1"
    (folder / "empty").mkdir(parents=True)
    for number in range(FILES):
        (folder / f"f{number:02}").write_text(f"content {number}")
    return Request(
        Endpoint(str(tmp_path), "day1"),
        Endpoint(str(tmp_path), "in"),
        "again",
        resume=True,
        mode=Mode.MOVE,
        strategy=Strategy.ARCHIVE,
    )


@pytest.fixture
def stop_half_way(request_: Request, tmp_path: Path) -> Callable[..., Request]:
    """Have a first attempt deliver the archive and remove some files; gives the second attempt."""

    def stop(**more: Any) -> Request:
        request = request_._replace(**more)
        with pytest.raises(engine.ConnectionLost):
            engine.run(request, Cut())
        assert staging(tmp_path / "in")
        for number in range(10):
            (tmp_path / "day1" / f"f{number:02}").unlink()
        return request._replace(attempt=2)

    return stop


def names_in(archive: Path) -> list[str]:
    """The files that an archive holds, whole."""
    with zipfile.ZipFile(archive) as read:
        assert read.testzip() is None
        return [name for name in read.namelist() if not name.endswith("/")]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_next_attempt_of_an_archive_move_keeps_the_archive_and_empties_the_source(
    policy: OnConflict, stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way(on_conflict=policy)
    before = (tmp_path / "in" / "day1.zip").stat()

    report = engine.run(request)

    assert (report.status, report.files, report.files_resumed) == ("done", FILES, FILES)
    assert os.listdir(tmp_path / "day1") == []
    assert os.listdir(tmp_path / "in") == ["day1.zip"]
    after = (tmp_path / "in" / "day1.zip").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(names_in(tmp_path / "in" / "day1.zip")) == FILES


def test_the_next_attempt_recognises_its_archive_beside_an_existing_one(
    stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "day1.zip").write_bytes(b"somebody's")
    request = stop_half_way(on_conflict=OnConflict.KEEP_BOTH)

    assert engine.run(request).status == "done"

    assert sorted(os.listdir(tmp_path / "in")) == ["day1 (2).zip", "day1.zip"]
    assert len(names_in(tmp_path / "in" / "day1 (2).zip")) == FILES


def test_an_archive_move_interrupted_three_times_before_removal_completes(
    stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way()
    for attempt in (2, 3):
        with pytest.raises(engine.ConnectionLost):
            engine.run(request._replace(attempt=attempt), Cut())

    assert engine.run(request._replace(attempt=4)).files == FILES
    assert os.listdir(tmp_path / "day1") == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_missing_or_changed_archive_stops_the_next_attempt_until_it_is_restored(
    gone: bool, stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way()
    archive = tmp_path / "in" / "day1.zip"
    data = archive.read_bytes()
    if gone:
        archive.unlink()
    else:
        archive.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])

    with pytest.raises(engine.DeliveredGone):
        engine.run(request)

    assert len(os.listdir(tmp_path / "day1")) == FILES - 10 + 1
    archive.write_bytes(data)
    assert engine.run(request._replace(attempt=3)).status == "done"
    assert os.listdir(tmp_path / "in") == ["day1.zip"]


def test_the_archive_is_recognised_while_the_first_attempts_agent_still_has_its_lock(
    stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way()
    (left,) = staging(tmp_path / "in")
    with (left / "a1.lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)

        report = engine.run(request)

    assert (report.status, report.files) == ("done", FILES)
    assert os.listdir(tmp_path / "in") == ["day1.zip"]


def test_a_resumed_archive_move_reports_and_keeps_new_and_changed_source_files(
    stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way()
    (tmp_path / "day1" / "new").write_text("new")
    (tmp_path / "day1" / "f20").write_text("changed")

    report = engine.run(request)

    assert report.status == "partial"
    assert {(failure.path, failure.code) for failure in report.failures} == {
        ("new", "SOURCE_CHANGED"),
        ("f20", "SOURCE_CHANGED"),
    }
    assert sorted(os.listdir(tmp_path / "day1")) == ["f20", "new"]
    assert staging(tmp_path / "in") == []


@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.KEEP_BOTH])
def test_a_repeated_archive_copy_succeeds_and_leaves_the_archive_unchanged(
    policy: OnConflict, request_: Request, tmp_path: Path
) -> None:
    request = request_._replace(mode=Mode.COPY, on_conflict=policy)
    engine.run(request)
    before = (tmp_path / "in" / "day1.zip").stat().st_ino

    assert engine.run(request._replace(attempt=2)).status == "done"

    assert os.listdir(tmp_path / "in") == ["day1.zip"]
    assert (tmp_path / "in" / "day1.zip").stat().st_ino == before


def another_archive(archive: Path) -> bytes:
    return archive.read_bytes().replace(b"content", b"FORGERY")


def nonsense(archive: Path) -> bytes:
    return b"F" * archive.stat().st_size


def only_the_first_members(archive: Path) -> bytes:
    """Of the ten files that were removed at the source; then it ends."""
    data = archive.read_bytes()
    with zipfile.ZipFile(archive) as read:
        return data[: read.getinfo("f15").header_offset]


@pytest.mark.parametrize("forged", [another_archive, nonsense, only_the_first_members])
def test_a_forged_archive_with_a_journal_that_names_its_digest_lets_the_source_remove_nothing(
    stop_half_way: Callable[..., Request], tmp_path: Path, forged: Callable[[Path], bytes]
) -> None:
    """What the journal says that the archive holds is true: the forger knew the files."""
    request = stop_half_way()
    archive = tmp_path / "in" / "day1.zip"
    data = forged(archive)
    archive.write_bytes(data)
    folder = os.open(staging(tmp_path / "in")[0], os.O_RDONLY)
    journal = Journal(folder, machine())
    (inside,) = [journal.record(at) for at, body in journal.records() if "inside" in body]
    journal.start(1)
    journal.add({"inside": 1, "list": inside["list"]}, inside["blob"])
    journal.keep_durable(lambda: None)
    announce(journal, ["day1.zip", len(data), False], hashlib.sha256(data).digest())
    journal.close()
    os.close(folder)

    report = engine.run(request)

    kept = 15 if forged is only_the_first_members else 20
    assert report.status == "partial"
    assert len([path for path in (tmp_path / "day1").iterdir() if path.is_file()]) == kept
    assert {failure.code for failure in report.failures} == {"SOURCE_CHANGED"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Journal, Tree, Tree]]:
    """A journal, and the trees of an archive before and after it is published."""
    for name in ("staging", "target", "place"):
        (tmp_path / name).mkdir()
    staged, target, place = (
        os.open(tmp_path / name, os.O_RDONLY) for name in ("staging", "target", "place")
    )
    journal = Journal(place, "machine")
    journal.keep_durable(lambda: None)
    trees = Tree(staged), Tree(target)
    yield journal, *trees
    for tree in trees:
        tree.close()
    journal.close()
    os.close(place)


def recalled(place: tuple[Journal, Tree, Tree]) -> list[str]:
    """The files of the archive that is recalled; nothing if none is."""
    told = list(recall(*place, lambda size: None))
    return [entry.path for head, blob in told[1:] for entry in unpack_entries(blob[: head["list"]])]


def put_down(journal: Journal, *names: str) -> None:
    """A run that is about to publish its archive."""
    journal.start(1)
    blob = pack_entries(Entry(name, FILE, 1, 2, 0o644, 3) for name in names)
    journal.add({"inside": 1, "list": len(blob)}, blob + bytes(32 * len(names)))
    announce(journal, ["day1.zip", 7, False], hashlib.sha256(b"archive").digest())


def test_recall_finds_an_archive_only_after_it_reached_the_target(
    place: tuple[Journal, Tree, Tree], tmp_path: Path
) -> None:
    """By runs of one number, as the command line has them: the second one without a file."""
    staged = tmp_path / "staging" / "day1.zip"
    put_down(place[0], "a", "b")
    staged.write_bytes(b"archive")
    assert recalled(place) == []
    staged.unlink()  # As a survey does, before a second run is stopped.
    assert recalled(place) == []
    put_down(place[0], "a")
    (tmp_path / "target" / "day1.zip").write_bytes(b"archive")
    assert recalled(place) == ["a"]


@pytest.mark.parametrize("policy", OVERWRITES)
def test_an_archive_move_with_an_overwrite_policy_is_refused(
    policy: OnConflict, stop_half_way: Callable[..., Request], tmp_path: Path
) -> None:
    request = stop_half_way()
    before = (tmp_path / "in" / "day1.zip").read_bytes()
    with pytest.raises(engine.BadRequest, match="cannot overwrite"):
        engine.run(request._replace(on_conflict=policy))
    assert (tmp_path / "in" / "day1.zip").read_bytes() == before
