"""The journal of a staging folder: which of its records a later attempt may believe."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.agent.target import journal as journals
from engine.agent.target.journal import Journal
from engine.agent.target.staging.folder import Staging
from engine.agent.wire import FOLDER, MAX_ENTRIES, AgentError, Entry, pack_entries
from tests.engine.staged import Place
from tests.rig.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def test_journal_records_are_read_back_in_order_and_by_their_offset(place: Place) -> None:
    journal = place.begin()
    for number in range(5):
        journal.add({"parcel": number, "list": 0}, bytes([number]) * number)

    found = [(at, body) for at, body in journal.records() if "parcel" in body]

    assert [body["parcel"] for _, body in found] == list(range(5))
    for at, body in found:
        assert (
            journal.record(at)["blob"] == body["blob"] == bytes([body["parcel"]]) * body["parcel"]
        )


def test_a_truncated_record_ends_the_journal_and_is_cut_away(place: Place) -> None:
    journal = place.begin()
    journal.add({"parcel": 1, "list": 0})
    whole = place.file.read_bytes()
    journal.add({"parcel": 2, "list": 0}, b"blob")
    longer = place.file.read_bytes()

    for size in range(len(whole), len(longer)):
        place.file.write_bytes(longer[:size])
        assert place.believed() == [1]
        assert place.file.read_bytes() == whole
    place.file.write_bytes(longer[:-1])
    assert place.believed() == [1]
    place.open().add({"parcel": 3, "list": 0})
    assert place.believed() == [1, 3]


def test_a_damaged_record_ends_the_journal(place: Place) -> None:
    journal = place.begin()
    journal.add({"parcel": 1, "list": 0})
    start = place.file.stat().st_size
    journal.add({"parcel": 2, "list": 0}, b"blob")
    whole = place.file.read_bytes()

    for at in range(start, len(whole)):
        place.file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert place.believed() == [1]


def test_records_of_an_attempt_that_starts_after_a_torn_record_are_kept(tmp_path: Path) -> None:
    target = os.open(tmp_path, os.O_RDONLY)
    first = Staging(target, "job", 1, "boot 1")
    first.prepare([])
    first.journal.add({"parcel": 1, "list": 0})
    file = tmp_path / ".ketter-job.part" / "journal"
    with file.open("ab") as torn:
        torn.write(b"\0\0\1\0torn")
    os.close(first._locks["1"])

    second = Staging(target, "job", 1, "boot 2")
    assert second.prepare([], resume=True)[1]
    list(second.journal.records())  # As a survey reads them.
    second.journal.add({"parcel": 2, "list": 0})

    assert [body["parcel"] for _, body in second.journal.records() if "parcel" in body] == [2]
    os.close(target)


def test_only_durable_records_count_after_a_reboot(place: Place) -> None:
    journal = place.begin()
    journal.add({"parcel": 1, "list": 0})
    assert place.believed("boot 2") == []
    journal.add({"durable": place.file.stat().st_size})
    journal.add({"parcel": 2, "list": 0})

    assert place.believed("boot 1") == [1, 2]
    assert place.believed("boot 2") == [1]
    place.begin(2, "boot 2").add({"parcel": 3, "list": 0})
    assert place.believed("boot 2") == [1, 3]
    assert place.believed("boot 3") == [1]


def test_records_lost_in_a_reboot_stay_lost_when_later_ones_become_durable(place: Place) -> None:
    place.begin().add({"parcel": 1, "list": 0})  # In memory only, and gone.
    journal = place.begin(2, "boot 2")
    journal.add({"parcel": 2, "list": 0})
    journal.add({"durable": place.file.stat().st_size})

    assert place.believed("boot 2") == [2]
    assert place.believed("boot 3") == [2]


class Flusher:
    """What writes a journal's folder out to the disk: counted, and breaking on demand."""

    def __init__(self, journal: Journal) -> None:
        self.broken = False
        self.durable_before: list[list[int]] = []
        self._journal = journal
        before = set(threading.enumerate())
        journal.keep_durable(self._flush)
        (self._thread,) = set(threading.enumerate()) - before

    def _flush(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.durable_before.append(durable_in(self._journal))

    def end(self) -> None:
        """Break it; nothing is made durable any more."""
        self.broken = True
        while self._thread.is_alive():
            self._journal.add({"parcel": 0, "list": 0}, worth=journals.DURABLE_BYTES)
            self._thread.join(0.05)


def durable_in(journal: Journal) -> list[int]:
    return [body["durable"] for _, body in journal.records() if "durable" in body]


def test_a_journal_records_durability_only_after_the_flush(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "DURABLE_SECONDS", 60.0)
    journal = place.begin()
    flusher = Flusher(journal)
    time.sleep(0.1)  # Until it waits for news.
    journal.add({"parcel": 1, "list": 0}, worth=journals.DURABLE_BYTES - 1)
    time.sleep(0.1)
    assert flusher.durable_before == []  # A flush for every record would be far too slow.
    at = place.file.stat().st_size
    journal.add({"parcel": 2, "list": 0}, worth=1)
    wait_until(lambda: bool(durable_in(journal)))

    (said,) = durable_in(journal)
    assert flusher.durable_before == [[]]
    assert at < said < place.file.stat().st_size
    assert place.believed("boot 2") == [1, 2]
    flusher.end()


def test_new_records_become_durable_after_the_flush_interval(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "DURABLE_SECONDS", 0.1)
    journal = place.begin()
    flusher = Flusher(journal)
    time.sleep(0.1)
    journal.add({"parcel": 1, "list": 0})

    wait_until(lambda: place.believed("boot 2") == [1])

    time.sleep(0.5)
    # Without news there is nothing to write out: else there would be five by now. A slow disk makes
    # two of one.
    assert 1 <= len(flusher.durable_before) <= 2
    flusher.end()


def test_a_flush_that_fails_makes_nothing_durable(place: Place) -> None:
    journal = place.begin()
    flusher = Flusher(journal)
    flusher.end()

    assert durable_in(journal) == []
    assert place.believed("boot 2") == []


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("look", [Journal.repair, lambda journal: list(journal.records())])
def test_a_record_written_during_a_read_or_repair_is_not_cut_away(
    place: Place, monkeypatch: pytest.MonkeyPatch, look: Callable[[Journal], object], same: bool
) -> None:
    """As by what makes it durable, or by an agent of the attempt before that still lives."""
    journal = place.begin()
    journal.add({"parcel": 1, "list": 0})
    other = journal if same else place.open()
    writer = threading.Thread(target=lambda: other.add({"parcel": 2, "list": 0}))
    survey = Journal._survey

    def slowly(looking: Journal) -> tuple[int, list[tuple[int, int]]]:
        found = survey(looking)
        if not writer.ident:
            writer.start()
            writer.join(0.3)
        return found

    monkeypatch.setattr(Journal, "_survey", slowly)
    look(journal)
    writer.join()
    assert place.believed() == [1, 2]


def test_several_agents_write_whole_records(place: Place) -> None:
    place.begin()

    def write(number: int) -> None:
        journal = place.open()
        for record in range(200):
            journal.add({"parcel": number * 1000 + record, "list": 0}, os.urandom(5000))

    agents = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for agent in agents:
        agent.start()
    for agent in agents:
        agent.join()

    found = place.believed()

    assert sorted(found) == [n * 1000 + record for n in range(4) for record in range(200)]
    for number in range(4):
        assert [one for one in found if one // 1000 == number] == sorted(
            one for one in found if one // 1000 == number
        )


@pytest.mark.parametrize("only", ["", FOLDER])
@pytest.mark.parametrize("blob", [b"", b"\0\0", b"\xff" * 40])
def test_a_journal_record_with_a_damaged_entry_list_is_refused(blob: bytes, only: str) -> None:
    """Found by fuzzing."""
    with pytest.raises(AgentError, match="damaged"):
        list(Journal.proven({"blob": blob, "list": len(blob)}, only))


def test_a_record_longer_than_any_that_an_agent_writes_ends_the_journal(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no owners are kept another user may write it, and it would be read into memory."""
    journal = place.begin()
    journal.add({"parcel": 1, "list": 0})
    journal.add({"parcel": 2, "list": 0}, bytes(journals._MOST + 1))
    journal.add({"parcel": 3, "list": 0})

    assert place.believed() == [1]
    assert journals._MOST <= 32 << 20


def test_a_record_of_more_entries_than_a_parcel_has_proves_nothing() -> None:
    blob = pack_entries([Entry("a", "f", 0, 0, 0, 0)] * (MAX_ENTRIES + 1))

    with pytest.raises(AgentError, match="too long"):
        list(Journal.proven({"blob": blob, "list": len(blob)}))


def test_void_entries_are_recorded_in_records_that_can_be_read_again(place: Place) -> None:
    journal = place.begin()
    paths = [f"{number}" * 100 for number in range(1000)]

    journal.void(paths)

    voids = [body["void"] for _, body in journal.records() if "void" in body]
    assert [path for void in voids for path in void] == paths
    assert max(map(len, voids)) <= 100
