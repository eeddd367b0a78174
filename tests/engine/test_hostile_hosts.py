"""Transfers between this machine and a host whose agent lies: what it can reach, and what not.

The agents are ours with a piece of one module replaced. A module of the sender's
only makes a hostile source; one of the target's, a hostile target.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, SilentObserver, Strategy, bundle
from tests.engine.conftest import Run, endpoint
from tests.rig.hostile import facts

Lie = Callable[..., None]


@pytest.fixture
def lie(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lie]:
    """Put some Python at the end of modules of the agents."""

    def with_text(**texts: str) -> None:
        source_of = bundle.source_of

        def replaced(name: str) -> bytes:
            return source_of(name) + b"\n" + texts.get(name, "").encode()

        monkeypatch.setattr(bundle, "source_of", replaced)
        bundle.program.cache_clear()

    yield with_text
    monkeypatch.undo()
    bundle.program.cache_clear()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source with one file, a target folder with a folder of somebody's, and a canary."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "report").write_bytes(b"report")
    (tmp_path / "b" / "private").mkdir(parents=True)
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").write_bytes(b"canary")
    os.utime(tmp_path / "canary" / "file", ns=(5, 5))
    return tmp_path


#: A scan that finds what it is told to.
SCAN = """
def do_scan(self, **_):
    entries = [Entry(path, kind, size, 5, 0o644, 0, link) for path, kind, size, link in FOUND]
    self._desk.say({"entries": len(entries)}, pack_entries(entries))
    self._desk.say({"failures": []})
    return {"hard_links": 0, "links_skipped": 0, "blob": pack_entries([])}
Source.do_scan = do_scan
"""
#: A sender that has all files that were found; links lead to the canary.
SEND = """
def _made_up(self, entry, archive=0):
    data = entry.link.encode() if entry.kind == "l" else b"x" * entry.size
    if isinstance(archive, ZipWriter):
        archive.add(entry, zlib.crc32(data), data)
    else:
        self._out.write(data)
    return hashlib.sha256(data).digest()
Sender._file = Sender._member = _made_up
"""


def found(*entries: tuple[str, str, int, str]) -> str:
    return SCAN.replace("FOUND", repr(list(entries)))


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.OVERWRITE])
@pytest.mark.parametrize("path", ["../canary/new", "/canary/new", "a/../../canary/new", "a//new"])
def test_a_scan_that_leads_out_of_the_target_writes_nothing(
    tree: Path, run: Run, lie: Lie, path: str, policy: OnConflict, strategy: Strategy
) -> None:
    lie(source=found(("report", "f", 6, ""), (path, "f", 6, "")), sender=SEND)
    before = facts(tree)

    with pytest.raises(engine.EngineError) as caught:
        run(strategy=strategy, on_conflict=policy, mode=Mode.MOVE)

    assert caught.value.code in ("PATH_OUTSIDE_ROOT", "VANISHED")
    now = facts(tree)
    del now["b"], before["b"]  # Its time: the staging folder was there.
    assert now == before


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_scan_of_a_symlink_and_something_below_it_writes_nothing_there(
    tree: Path, run: Run, lie: Lie, strategy: Strategy
) -> None:
    canary = str(tree / "canary")
    lie(
        source=found(("way", "l", len(canary), canary), ("way/file", "f", 6, "")),
        sender=SEND,
    )
    before = facts(tree / "canary")

    report = run(strategy=strategy, on_conflict=OnConflict.OVERWRITE)

    assert [failure.path for failure in report.failures] == ["way/file"]
    assert facts(tree / "canary") == before
    assert os.readlink(tree / "b" / "way") == canary


def test_a_scan_that_leads_out_is_not_even_held_against_what_lies_there(
    tree: Path, run: Run, lie: Lie
) -> None:
    lie(source=found(("../canary/file", "f", 6, "")), sender=SEND)

    with pytest.raises(engine.EngineError) as caught:
        run(on_conflict=OnConflict.SKIP, mode=Mode.MOVE)

    assert caught.value.code == "PATH_OUTSIDE_ROOT"


def test_a_scan_does_not_reach_another_transfers_staging_folder(
    tree: Path, run: Run, lie: Lie
) -> None:
    other = tree / "b" / ".ketter-other.part"
    (other / "a1").mkdir(parents=True)
    (other / "a1" / "proven").write_bytes(b"proven")
    (other / "made").write_bytes(b"[]")
    before = facts(other)
    names = (".ketter-other.part/a1/proven", ".ketter-other.part/made")
    lie(source=found(*((name, "f", 6, "") for name in names)), sender=SEND)

    with pytest.raises(engine.EngineError):
        run(on_conflict=OnConflict.OVERWRITE)

    assert facts(other) == before


# -- parcels that nobody planned -----------------------------------------------

#: The parcel is announced as an archive, under a name of the sender's choice.
AS_ARCHIVE = """
def send(self, head, blob, theirs=b"", drill="", last=False):
    self.digests, self.errors, self.torn = bytearray(), {}, False
    head = {**head, "kind": "archive", "name": "private/keys"}
    self._out.frame(HEAD, head, theirs or blob)
    self._out.write(b"theirs")
    if last:
        import hashlib
        self._whole = hashlib.sha256(b"theirs")
        self.digests = bytearray(hashlib.sha256(b"").digest())
    self._out.frame(END_PARCEL, {"errors": {}}, bytes(self.digests))
Sender.send = send
"""


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.ARCHIVE])
def test_a_sender_does_not_choose_the_name_of_a_single_file(
    tree: Path, run: Run, lie: Lie, strategy: Strategy
) -> None:
    lie(sender=AS_ARCHIVE)
    source = tree / "a" / "report" if strategy is Strategy.AUTO else tree / "a"

    with pytest.raises(engine.EngineError):
        run(source=endpoint(source), target=endpoint(tree / "b" / "x.zip"), strategy=strategy)

    assert sorted(os.listdir(tree / "b")) == ["private"]
    assert os.listdir(tree / "b" / "private") == []


#: What announces the parcels is kept back, and passed on behind the first of them.
WITHHELD = """
_do_send, _held = Source.do_send, []
def do_relay(self, blob):
    _held.append(blob)
    return {"relayed": 1}
def do_send(self, **command):
    answer = _do_send(self, **command)
    Source.do_relay = lambda self, blob: self._outlet.pass_on(blob) or {"relayed": 1}
    for blob in _held:
        self._outlet.pass_on(blob)
    return answer
Source.do_relay, Source.do_send = do_relay, do_send
"""


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.ARCHIVE])
def test_a_parcel_is_not_taken_before_it_is_announced(
    tree: Path, run: Run, lie: Lie, strategy: Strategy
) -> None:
    lie(sender=AS_ARCHIVE, source=WITHHELD)
    source = tree / "a" / "report" if strategy is Strategy.AUTO else tree / "a"

    with pytest.raises(engine.EngineError):
        run(source=endpoint(source), target=endpoint(tree / "b" / "x.zip"), strategy=strategy)

    assert sorted(os.listdir(tree / "b")) == ["private"]
    assert os.listdir(tree / "b" / "private") == []


#: Behind the parcel, one that nobody asked for: it takes the file away and brings another.
ONE_MORE = """
import time
from engine.agent.wire import *
from engine.agent.wire import DATA, END_ENTRY, END_PARCEL, HEAD, HEADER, encode, write_all
_do_send, _frame = Source.do_send, Outlet.frame
def do_send(self, **command):
    held = []
    def frame(outlet, kind, body, blob=b""):
        if kind == END_PARCEL:
            outlet.flush()
            held.append(encode(kind, body, blob))
        else:
            _frame(outlet, kind, body, blob)
    Outlet.frame = frame
    answer = _do_send(self, **command)
    body = dict(answer)
    self._desk.say({"done": body}, body.pop("blob"))
    time.sleep(0.5)
    size = command["theirs"]
    entries = unpack_entries(command["blob"][-size:] if size else command["blob"])
    rogue = pack_entries(entries + [Entry("private/keys", "f", 4, 0, 0o600, 0)])
    write_all(1, *held, encode(HEAD, {"kind": "file", "parcel": 2}, rogue),
        encode(END_ENTRY, {"error": ["", ""]}), HEADER.pack(DATA, 4), b"evil",
        encode(END_ENTRY, {}), encode(END_PARCEL, {}, bytes(64)))
    time.sleep(60)
Source.do_send = do_send
"""


def test_a_parcel_that_nobody_asked_for_is_not_published(tree: Path, run: Run, lie: Lie) -> None:
    lie(source=ONE_MORE)

    with pytest.raises(engine.EngineError):
        run(source=endpoint(tree / "a" / "report"), target=endpoint(tree / "b" / "report"))

    assert os.listdir(tree / "b" / "private") == []


#: A while after its last parcel, each stream but the first begins one more that never ends.
LATER = """
import os, threading, time
from engine.agent.wire import DATA, HEAD, HEADER, encode, write_all
_do_send, _init = Source.do_send, Source.__init__
def __init__(self, desk):
    _init(self, desk)
    self.sent, self.first = 0, not os.path.exists("FLAG")
    open("FLAG", "w").close()
def do_send(self, **command):
    self.sent += 1
    threading.Thread(target=later, args=(self, self.sent, command["blob"]), daemon=True).start()
    return _do_send(self, **command)
def later(self, number, blob):
    time.sleep(1.0)
    if number == self.sent and not self.first:
        size = unpack_entries(blob)[0].size
        head = {"kind": "range", "parcel": 9, "slices": [[0, size]]}
        write_all(1, encode(HEAD, head, blob), HEADER.pack(DATA, 4), b"evil")
Source.__init__, Source.do_send = __init__, do_send
"""


class Slow(SilentObserver):
    """A worker that takes its time between the last parcel and publishing, but not for ever."""

    def __init__(self) -> None:
        self.until = time.monotonic() + 20.0

    def checkpoint(self) -> None:
        if time.monotonic() > self.until:
            raise engine.Cancelled("it hangs")

    def phase(self, phase: engine.Phase) -> None:
        if phase is engine.Phase.PUBLISH:
            time.sleep(2.0)


def test_what_is_proven_is_not_written_to_by_another_stream(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = engine.types.ParcelKind
    monkeypatch.setattr("engine.plan.PARCEL_BYTES", dict.fromkeys((kinds.ZIP, kinds.FILE), (1, 1)))
    for number in range(12):
        (tree / "a" / f"{number}").write_bytes(b"proven" * 200_000)
    lie(source=LATER.replace("FLAG", str(tree / "flag")))

    try:
        # Slow enough for the second stream to be there in time.
        report = run(Slow(), streams=2, strategy=Strategy.FILES, bwlimit=8_000_000)
    except engine.EngineError:
        assert sorted(os.listdir(tree / "b")) == ["private"]
        return

    assert report.streams == 2
    for number in range(12):
        assert (tree / "b" / f"{number}").read_bytes() == b"proven" * 200_000


def test_a_source_does_not_say_whose_the_target_folder_is(tree: Path, run: Run, lie: Lie) -> None:
    (tree / "a").chmod(0o777)
    lie(
        source="""
_do_send = Source.do_send
def do_send(self, **command):
    import time
    answer = _do_send(self, **command)
    time.sleep(0.5)
    self._desk.say({"done": {"fresh": True}})
    return answer
Source.do_send = do_send
"""
    )
    (tree / "b").chmod(0o700)

    run()

    assert (tree / "b").stat().st_mode & 0o777 == 0o700
