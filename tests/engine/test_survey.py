"""Taking up what an earlier attempt left: what is proven stays, everything else goes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.agent.reader import FrameReader
from engine.agent.target.journal import file_key
from engine.agent.target.receiver import Receiver
from engine.agent.target.resume import _RUNS, Survey
from engine.agent.target.staged_files import WriteOptions
from engine.agent.tree import Tree
from engine.agent.wire import (
    DATA,
    END_ENTRY,
    END_PARCEL,
    FILE,
    FOLDER,
    HARD_LINK,
    HEADER,
    LINK,
    MARK,
    NO_DIGEST,
    AgentError,
    Entry,
    encode,
    message,
    pack_entries,
)
from engine.parcels.spool import Spool
from engine.plan.on_record import OnRecord
from engine.plan.resumed import MOST_PARTS, Resumed
from engine.protocol.messages import FilePart, StagedParts, read_message
from tests.engine.staged import MTIME, Place, prove


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_a_survey_keeps_proven_entries_and_removes_everything_else(place: Place) -> None:
    journal = place.begin()
    kept = [place.put("a"), place.put("reel/b"), place.put("reel/deep/c")]
    prove(journal, Entry("reel", FOLDER, 0, 1, 0o755, 1), *kept)
    for stray in ("stray", "reel/stray", "stray_folder/x/y", "reel/empty/none"):
        place.put(stray)
    (place.root / "reel" / "empty" / "none").unlink()
    (place.root / "stray_link").symlink_to("a")
    os.mkfifo(place.root / "stray_pipe")

    held, parts = place.take_up()

    assert held == ["a", "reel", "reel/b", "reel/deep/c"]
    assert parts == []
    # A folder that nothing proves stays for what is in it.
    assert place.left() == ["a", "reel", "reel/b", "reel/deep", "reel/deep/c"]


def test_a_survey_keeps_proven_entries_of_every_kind(place: Place) -> None:
    journal = place.begin()
    first = place.put("first")
    os.link(place.root / "first", place.root / "further")
    (place.root / "link").symlink_to(os.fsdecode(b"nowhere \xff"))
    (place.root / "empty").mkdir()
    entries = [
        first,
        Entry("link", LINK, 9, MTIME, 0o777, 2, os.fsdecode(b"nowhere \xff")),
        Entry("empty", FOLDER, 0, MTIME, 0o700, 3),
        Entry("further", HARD_LINK, 0, MTIME, 0o644, 7, "first"),
    ]
    prove(journal, *entries)

    assert place.take_up()[0] == ["empty", "first", "further", "link"]
    assert place.left() == ["empty", "first", "further", "link"]


def rewrite(path: Path, content: bytes) -> None:
    """Give it another content and its old time."""
    path.write_bytes(content)
    os.utime(path, ns=(MTIME, MTIME))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("other")


SPOILS: dict[str, Callable[[Path], object]] = {
    "longer": lambda path: rewrite(path, b"frames!"),
    "shorter": lambda path: rewrite(path, b"frame"),
    "touched": lambda path: os.utime(path, ns=(MTIME, MTIME + 1)),
    "gone": lambda path: path.unlink(),
    "a folder": make_folder,
    "a link": make_link,
}


@pytest.mark.parametrize("what", SPOILS)
def test_a_survey_removes_a_file_that_is_not_as_it_was_proven(place: Place, what: str) -> None:
    entries = [place.put("odd"), place.put("other")]
    prove(place.begin(), *entries)

    SPOILS[what](place.root / "odd")

    assert place.take_up()[0] == ["other"]
    assert place.left() == ["other"]


def test_a_survey_removes_a_symlink_that_leads_elsewhere_than_proven(place: Place) -> None:
    (place.root / "link").symlink_to("there")
    prove(place.begin(), Entry("link", LINK, 4, MTIME, 0o777, 2, "here"))

    assert place.take_up() == ([], [])
    assert place.left() == []


def test_a_survey_removes_a_file_that_its_parcel_did_not_prove(place: Place) -> None:
    entries = [place.put("good"), place.put("bad")]
    packed = pack_entries(entries)
    body = {"parcel": 1, "list": len(packed)}
    place.begin().add(body, packed + hashlib.sha256(b"frames").digest() + NO_DIGEST)

    assert place.take_up()[0] == ["good"]
    assert place.left() == ["good"]


def test_a_survey_after_a_reboot_removes_files_that_were_not_durable(place: Place) -> None:
    journal = place.begin()
    prove(journal, place.put("durable"))
    journal.add({"durable": place.file.stat().st_size})
    prove(journal, place.put("late"))

    assert place.take_up("boot 2")[0] == ["durable"]
    assert place.left() == ["durable"]


def test_a_survey_does_not_believe_a_proof_that_was_lost_in_a_reboot(place: Place) -> None:
    """Boot 1 proved it, in memory only. On boot 2 it came again and was not proven."""
    prove(place.begin(), place.put("odd"))
    place.take_up("boot 2")
    assert place.left() == []
    journal = place.begin(2, "boot 2")
    prove(journal, place.put("other"))
    journal.add({"durable": place.file.stat().st_size})
    place.put("odd", b"FRAMES")  # Damaged on its way: of the same size and time.

    assert place.take_up("boot 2")[0] == ["other"]


def test_a_survey_removes_a_voided_file_unless_it_was_proven_again(place: Place) -> None:
    journal = place.begin()
    again, never, other = place.put("again"), place.put("never"), place.put("other")
    prove(journal, again, never, other)
    journal.add({"void": ["again", "never"]})
    prove(journal, again)

    assert place.take_up()[0] == ["again", "other"]
    assert place.left() == ["again", "other"]


def test_a_survey_keeps_a_file_that_fits_one_of_its_two_records(place: Place) -> None:
    journal = place.begin()
    old, new = place.put("odd", b"old", MTIME - 5), place.put("odd")
    prove(journal, old)
    prove(journal, new)

    assert place.take_up()[0] == ["odd"]
    prove(journal, old)
    assert place.take_up()[0] == ["odd"]  # The later one does not fit, the earlier one does.
    assert place.left() == ["odd"]


# -- files that have arrived in part ----------------------------------------------


def test_a_survey_uses_the_furthest_mark_of_a_partial_file(place: Place) -> None:
    entry = place.put("large", bytes(500))._replace(size=1000)
    journal = place.begin()
    for at in (100, 300, 200):
        journal.add({"file": file_key(entry), "upto": at}, bytes([at % 256]) * 32)

    held, parts = place.take_up()

    assert (held, place.left()) == ([], ["large"])
    assert parts == [{"file": file_key(entry), "upto": 300, "slices": []}]


def test_a_survey_gathers_all_slices_of_a_partial_file(place: Place) -> None:
    entry = place.put("large", bytes(1000))
    journal = place.begin()
    for at in (0, 500, 200):
        journal.add({"file": file_key(entry), "slice": [at, 100]}, b"d" * 32)

    ((part,),) = place.take_up()[1:]

    assert sorted(part["slices"]) == [[at, 100] for at in (0, 200, 500)]
    assert place.left() == ["large"]


@pytest.mark.parametrize(
    ("size", "part", "voided"),
    [
        (0, {"upto": 300}, False),
        (299, {"upto": 300}, False),
        (999, {"slice": [0, 100]}, False),
        (500, {"upto": 400}, True),
    ],
    ids=["empty", "shorter than its mark", "a slice without the whole size", "voided"],
)
def test_a_survey_removes_a_partial_file_that_its_records_do_not_fit(
    place: Place, size: int, part: dict[str, Any], voided: bool
) -> None:
    entry = place.put("large", bytes(size))._replace(size=1000)
    journal = place.begin()
    journal.add({"file": file_key(entry), **part}, b"d" * 32)
    if voided:
        journal.add({"void": ["large"]})

    assert place.take_up() == ([], [])
    assert place.left() == []


def test_a_survey_ignores_parts_of_an_older_version_of_a_file(place: Place) -> None:
    entry = place.put("large", bytes(500))._replace(size=1000)
    journal = place.begin()
    journal.add({"file": file_key(entry._replace(mtime_ns=MTIME - 1)), "upto": 400}, b"d" * 32)
    journal.add({"file": file_key(entry), "upto": 100}, b"e" * 32)

    ((part,),) = place.take_up()[1:]

    assert (part["file"], part["upto"]) == (file_key(entry), 100)


def test_a_survey_reports_no_parts_of_a_complete_file(place: Place) -> None:
    entry = place.put("large", bytes(1000))
    journal = place.begin()
    journal.add({"file": file_key(entry), "upto": 400}, b"d" * 32)
    prove(journal, entry)

    assert place.take_up() == (["large"], [])


# -- what a receiver puts down ------------------------------------------------------


def received(place: Place, frames: bytes, head: dict[str, object], entries: list[Entry]) -> None:
    """Have a receiver take in a parcel."""
    came = place.file.with_name("came")
    came.write_bytes(frames)
    tree = Tree(os.open(place.root, os.O_RDONLY))
    fd = os.open(came, os.O_RDONLY)
    receiver = Receiver(tree, tree, place.begin(), WriteOptions(), lambda done: None)
    receiver.receive(FrameReader(fd), {"parcel": 1, **head, "blob": pack_entries(entries)})
    tree.close()
    os.close(fd)


def data(content: bytes) -> bytes:
    return HEADER.pack(DATA, len(content)) + content


def test_a_receiver_records_only_files_that_the_sender_confirms(place: Place) -> None:
    entries = [Entry(name, FILE, 6, MTIME, 0o644, 7) for name in ("good", "bad")]
    digests = hashlib.sha256(b"frames").digest() + hashlib.sha256(b"others").digest()
    frames = (data(b"frames") + encode(END_ENTRY, {})) * 2 + encode(END_PARCEL, {}, digests)

    received(place, frames, {"kind": "file"}, entries)

    assert place.left() == ["bad", "good"]
    assert place.take_up()[0] == ["good"]
    assert place.left() == ["good"]


def test_a_receiver_records_only_marks_that_both_ends_agree_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.agent.reader.BETWEEN_MARKS", 10)
    entry = Entry("large", FILE, 30, MTIME, 0o644, 7)
    good, bad = hashlib.sha256(bytes(10)).digest(), hashlib.sha256(b"else").digest()
    frames = data(bytes(10)) + encode(MARK, {"at": 10}, good)
    frames += data(bytes(10)) + encode(MARK, {"at": 20}, bad)
    frames += data(bytes(10)) + encode(END_ENTRY, {}) + encode(END_PARCEL, {}, bad)

    received(place, frames, {"kind": "file"}, [entry])

    held, (part,) = place.take_up()
    assert (held, part["upto"]) == ([], 10)


def test_a_survey_joins_slices_that_follow_one_another(place: Place) -> None:
    entry = place.put("large", bytes(1000))
    journal = place.begin()
    for at in (200, 0, 100, 100, 500):
        journal.add({"file": file_key(entry), "slice": [at, 100]}, b"d" * 32)

    ((part,),) = place.take_up()[1:]

    assert part["slices"] == [[0, 300], [500, 100]]


def test_the_worker_takes_a_survey_of_any_number_of_slices(place: Place) -> None:
    """A terabyte in every other slice, and many files: each message has less than 4 MiB of JSON."""
    journal, size = place.begin(), 1 << 40
    for name in ("a", "b", *(f"{number:03}" for number in range(45))):
        key = file_key(place.put(name)._replace(size=size))
        os.truncate(place.root / name, size)
        for at in range(0, size if name in "ab" else 64 << 20, 16 << 20):
            journal.add({"file": key, "slice": [at, 8 << 20]}, b"d" * 32)
    messages: list[bytes] = []
    tree = Tree(os.open(place.root, os.O_RDONLY))
    Survey(tree, place.open()).take_up(lambda body, blob: messages.append(message(body, blob)))
    tree.close()

    resumed = Resumed(Spool(), OnRecord(None), lambda entry: entry)
    for body in messages:
        found = read_message(body)
        assert isinstance(found, StagedParts)
        resumed.on_message(found)

    assert max(map(len, messages)) < 3 << 20
    assert len(resumed.parts) == 47
    assert len(resumed.parts["a"].slices) == len(resumed.parts["b"].slices) == _RUNS


def test_a_target_that_reports_files_in_part_without_end_is_refused() -> None:
    """A host that lies about what had arrived does not fill the worker's memory."""
    resumed = Resumed(Spool(), OnRecord(None), lambda entry: entry)
    numbers = iter(range(MOST_PARTS + 2))

    def batch(size: int) -> StagedParts:
        parts = (FilePart(str(next(numbers)), 1, 1, 1, 1, ()) for _ in range(size))
        return StagedParts(parts=tuple(parts))

    resumed.on_message(batch(MOST_PARTS))
    with pytest.raises(AgentError, match="files in part"):
        resumed.on_message(batch(1))


def test_a_target_that_reports_files_in_part_with_endless_names_is_refused() -> None:
    resumed = Resumed(Spool(), OnRecord(None), lambda entry: entry)

    parts = tuple(FilePart("x" * 32_000 + str(number), 1, 1, 1, 1, ()) for number in range(300))
    with pytest.raises(AgentError, match="characters in their paths"):
        resumed.on_message(StagedParts(parts=parts))


def test_a_receiver_records_only_slices_that_both_ends_agree_on(place: Place) -> None:
    entry = Entry("large", FILE, 30, MTIME, 0o644, 7)
    good, bad = hashlib.sha256(bytes(10)).digest(), hashlib.sha256(b"else").digest()
    frames = data(bytes(10)) + encode(END_ENTRY, {}, good)
    frames += data(bytes(10)) + encode(END_ENTRY, {}, bad)
    frames += data(bytes(10)) + encode(END_ENTRY, {"error": ["SOURCE_CHANGED", "so"]}, bytes(32))
    frames += encode(END_PARCEL, {}, good + bad + NO_DIGEST)

    received(place, frames, {"kind": "range", "slices": [[0, 10], [10, 10], [20, 10]]}, [entry])

    held, (part,) = place.take_up()
    assert (held, part["slices"]) == ([], [[0, 10]])
