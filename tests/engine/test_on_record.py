"""What had arrived is believed if it is on the worker's own record; else it is read again."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import HardLinks, Mode, Phase, Verify
from engine.agent.inspect import machine
from engine.agent.target.journal import Journal
from engine.agent.wire import DIGEST, FILE, Entry, pack_entries
from engine.parcels.spool import Spool
from engine.plan.on_record import OnRecord
from engine.plan.resumed import BEYOND_PLAN, Resumed
from engine.protocol.messages import StagedEntries
from tests.rig.interrupted import (
    MIB,
    Held,
    build_large,
    build_many,
    forge,
    staged,
    staging,
    whole,
)
from tests.rig.observers import Stop
from tests.rig.records import Kept, Recorded, reading_again
from tests.rig.transfers import Run, endpoint
from tests.rig.trees import assert_equal_trees

#: Bytes that are no UTF-8, as Python names them.
ODD = os.fsdecode(b"odd\xff\xfe")
FORGED = "reel_0/0/00000.dpx"
FILES = 40

Asked = dict[str, list[str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """What both ends are asked to read again from here on."""
    with reading_again(monkeypatch) as asked:
        yield asked


@pytest.fixture
def record(tmp_path: Path, run: Run) -> Kept:
    """A record of a copy of some files whose connection was lost when all were staged."""
    build_many(tmp_path / "a", FILES, 4 << 10)
    (tmp_path / "a" / ODD).write_bytes(b"odd")
    record = Kept()
    with pytest.raises(engine.ConnectionLost):
        run(Recorded(record, Phase.PUBLISH), resume=True)
    return record


# -- what is believed --------------------------------------------------------------


def test_what_is_on_record_is_neither_read_nor_sent_again(
    tmp_path: Path, run: Run, record: Kept, asked: Asked
) -> None:
    held, before = Held(tmp_path / "b"), len(record.lists)

    report = run(Recorded(record), resume=True)

    assert asked == {"hash": [], "check": []}
    assert report.files_resumed == report.files == FILES + 2
    assert len(held.kept(tmp_path / "b")) == FILES + 1
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert len(record.lists) == before  # It had them already.


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("verify", Verify)
def test_an_entry_that_another_program_forged_is_sent_again(
    tmp_path: Path, run: Run, record: Kept, asked: Asked, verify: Verify, mode: Mode
) -> None:
    before, held = whole(tmp_path / "a"), Held(tmp_path / "b")
    forge(staging(tmp_path / "b")[0], only={FORGED})

    report = run(Recorded(record), resume=True, verify=verify, mode=mode)

    assert_equal_trees(before, whole(tmp_path / "b"))
    assert FORGED not in held.kept(tmp_path / "b")
    assert report.files_resumed == FILES + 1
    assert FORGED in asked["hash"]
    assert FORGED in asked["check"]
    if (verify, mode) == (Verify.STREAM, Mode.COPY):
        assert asked == {"hash": [FORGED], "check": [FORGED]}


def test_bytes_that_changed_at_the_target_are_found_at_level_readback(
    tmp_path: Path, run: Run, record: Kept, asked: Asked
) -> None:
    """The record has their digest, and so has the journal: only reading them shows it."""
    (file,) = (tmp_path / "b").glob(f".ketter-*.part/a1/{FORGED}")
    found = file.stat()
    file.write_bytes(b"F" * found.st_size)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))

    report = run(Recorded(record), resume=True, verify=Verify.READBACK)

    assert report.files_resumed == report.files - 1
    assert asked["hash"] == []
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_without_a_record_all_is_read_again_at_both_ends_and_nothing_sent(
    tmp_path: Path, run: Run, record: Kept, asked: Asked
) -> None:
    held = Held(tmp_path / "b")

    report = run(resume=True)

    assert sorted(asked["hash"]) == sorted(asked["check"])
    assert {FORGED, ODD} <= set(asked["check"])
    assert report.files_resumed == report.files
    assert len(held.kept(tmp_path / "b")) == FILES + 1


def test_without_a_record_a_forged_entry_is_sent_again(
    tmp_path: Path, run: Run, record: Kept
) -> None:
    forge(staging(tmp_path / "b")[0])

    report = run(resume=True)

    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert report.files_resumed == 1  # The link.


SPOILED: dict[str, Callable[[Entry], Entry]] = {
    "size": lambda entry: entry._replace(size=entry.size + 1),
    "time": lambda entry: entry._replace(mtime_ns=entry.mtime_ns + 1),
    "kind": lambda entry: entry._replace(kind="l"),
    "path": lambda entry: entry._replace(path=f"{entry.path}x"),
}


@pytest.mark.parametrize("what", [*SPOILED, "digest", "no digest"])
def test_an_entry_that_is_on_record_with_another_value_is_read_again(
    tmp_path: Path, run: Run, record: Kept, asked: Asked, what: str
) -> None:
    for at, (entries, digests) in enumerate(list(record.known())):
        index = [entry.path for entry in entries].index(FORGED)
        if what in SPOILED:
            entries[index] = SPOILED[what](entries[index])
        else:
            new = bytes(DIGEST) if what == "no digest" else b"d" * DIGEST
            digests = digests[: index * DIGEST] + new + digests[(index + 1) * DIGEST :]
        record.lists[at] = (pack_entries(entries), digests)

    report = run(Recorded(record), resume=True)

    assert asked == {"hash": [FORGED], "check": [FORGED]}
    assert report.files_resumed == report.files


def test_what_was_read_again_is_on_record_then(
    tmp_path: Path, run: Run, record: Kept, asked: Asked
) -> None:
    later = Kept()
    with pytest.raises(engine.ConnectionLost):
        run(Recorded(later, Phase.PUBLISH), resume=True)
    for paths in asked.values():
        paths.clear()

    run(Recorded(later), resume=True)

    assert asked == {"hash": [], "check": []}


def test_the_record_is_not_read_if_nothing_is_staged(tmp_path: Path, run: Run) -> None:
    build_many(tmp_path / "a", 3)
    record = Kept()

    run(Recorded(record), resume=True)

    assert (record.reads, len(record.lists)) == (0, 1)


# -- kinds of entries ----------------------------------------------------------------


def test_further_names_of_a_file_are_believed_by_the_record(
    tmp_path: Path, run: Run, asked: Asked
) -> None:
    (tmp_path / "a" / "folder").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"content")
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "folder" / ODD)
    (tmp_path / "a" / "link").symlink_to(ODD)
    record = Kept()
    options: dict[str, Any] = {"hard_links": HardLinks.KEEP, "resume": True}
    with pytest.raises(engine.ConnectionLost):
        run(Recorded(record, Phase.PUBLISH), **options)

    report = run(Recorded(record), **options)

    assert asked == {"hash": [], "check": []}
    assert report.files_resumed == report.files == 3
    assert (tmp_path / "b" / "one").samefile(tmp_path / "b" / "folder" / ODD)


@pytest.mark.parametrize("forged", [False, True], ids=["honest", "forged"])
@pytest.mark.parametrize("name", ["clip.mov", ODD], ids=["same", "other"])
def test_a_single_file_is_believed_by_the_record_whatever_its_name_at_the_target(
    tmp_path: Path, run: Run, asked: Asked, name: str, forged: bool
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "clip.mov").write_bytes(b"frames")
    places = {
        "source": endpoint(tmp_path / "a/clip.mov"),
        "target": endpoint(tmp_path / "b" / name),
    }
    record = Kept()
    with pytest.raises(engine.ConnectionLost):
        run(Recorded(record, Phase.PUBLISH), resume=True, **places)
    if forged:
        forge(staging(tmp_path / "b")[0])

    report = run(Recorded(record), resume=True, **places)

    assert (tmp_path / "b" / name).read_bytes() == b"frames"
    assert (report.files_resumed, asked["check"]) == ((0, [name]) if forged else (1, []))


def a_mark(size: int) -> dict[str, Any]:
    return {"upto": size - MIB}


def all_slices(size: int) -> dict[str, Any]:
    return {"slice": [0, size]}


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 4])
@pytest.mark.parametrize("part", [a_mark, all_slices])
def test_a_forged_part_of_a_large_file_does_not_reach_the_target(
    tmp_path: Path, run: Run, part: Callable[[int], dict[str, Any]], streams: int
) -> None:
    """A part counts by the file's whole content only, which both ends read."""
    large, size = tmp_path / "a" / "large.mov", 80 * MIB
    build_large(large, size)
    record = Kept()
    with pytest.raises(engine.Interrupted):
        run(
            Stop(lambda: staged(tmp_path / "b") >= 40 * MIB),
            bwlimit=60 * MIB,
            resume=True,
            streams=streams,
        )
    (left,) = staging(tmp_path / "b")
    (left / "a1" / "large.mov").write_bytes(b"F" * size)
    found = large.stat()
    folder = os.open(left, os.O_RDONLY)
    journal = Journal(folder, machine())
    key = [large.name, size, found.st_mtime_ns, found.st_ino]
    journal.add({"file": key, **part(size)}, b"d" * DIGEST)
    journal.close()
    os.close(folder)

    report = run(Recorded(record), resume=True, streams=streams)

    assert report.bytes_resumed > 0  # It was taken for staged at first, beside what had arrived.
    assert large.read_bytes() == (tmp_path / "b" / "large.mov").read_bytes()


# -- more than was planned ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("planned", "resumed"), [(FILES + 30, FILES + 2), (FILES - 20, 0), (None, 0)]
)
def test_a_target_that_lists_more_than_was_planned_begins_from_nothing(
    tmp_path: Path,
    run: Run,
    record: Kept,
    monkeypatch: pytest.MonkeyPatch,
    planned: int | None,
    resumed: int,
) -> None:
    monkeypatch.setattr("engine.plan.resumed.BEYOND_PLAN", 0)
    record.planned = planned

    report = run(Recorded(record), resume=True)

    assert report.files_resumed == resumed
    assert report.files == FILES + 2
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert not list((tmp_path / "b").glob(".ketter*"))


@pytest.mark.parametrize("planned", [0, None, "no record"])
@pytest.mark.parametrize("each", [1000, 0])
def test_the_first_list_beyond_the_plan_is_the_last_that_takes_memory(
    monkeypatch: pytest.MonkeyPatch, planned: int | str | None, each: int
) -> None:
    """Also where nothing is on record, as if the folder of the records was lost."""
    beyond = BEYOND_PLAN if each else 3000
    monkeypatch.setattr("engine.plan.resumed.BEYOND_PLAN", beyond)
    spool = Spool()
    record = Kept()
    record.planned = None if planned == "no record" else planned  # type: ignore[assignment]
    known = OnRecord(None if planned == "no record" else record)
    resumed = Resumed(spool, known, lambda entry: entry)
    some, digests = next(lists(1000)) if each else ([], b"")
    message = StagedEntries(pack_entries(some), digests)
    for _ in range(beyond // (each or 1) + 50):
        resumed.on_message(message)

    assert resumed.is_too_long
    assert list(resumed.all()) == []
    assert resumed.take(some) == some
    spool.close()


# -- memory ----------------------------------------------------------------------------


class Long(Kept):
    """A record that names each of many entries three times."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self._entries = entries

    def known(self) -> Iterator[tuple[list[Entry], bytes]]:
        for _ in range(3):
            yield from lists(self._entries)


def lists(entries: int) -> Iterator[tuple[list[Entry], bytes]]:
    """Lists of 1,000 entries, and of their digests."""
    for at in range(0, entries, 1000):
        some = [Entry(f"file {at + n}", FILE, at, n, 0o644, 0) for n in range(1000)]
        yield some, b"".join((at + n).to_bytes(DIGEST, "big") for n in range(1, 1001))


def test_an_entry_of_the_record_takes_less_than_twelve_bytes_of_memory() -> None:
    entries = 100_000
    on_record = OnRecord(Long(entries))
    tracemalloc.start()
    try:
        for some, digests in lists(entries):
            on_record.expect(some, digests)
        on_record.look_up(lambda: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Beside one list of a thousand entries.
    assert peak < 12 * entries + MIB
    some, digests = next(lists(entries))
    assert on_record.has(some[7], digests[7 * DIGEST : 8 * DIGEST])
    assert not on_record.has(some[7], digests[8 * DIGEST : 9 * DIGEST])


def test_a_record_is_read_no_further_than_to_the_last_entry_that_is_wanted() -> None:
    some, digests = next(lists(1000))
    checks: list[int] = []
    on_record = OnRecord(Long(100_000))
    on_record.expect(some, digests)

    on_record.look_up(lambda: checks.append(1))

    assert checks == []
    assert on_record.has(some[0], digests[:DIGEST])
