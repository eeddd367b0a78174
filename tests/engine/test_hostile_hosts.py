"""Transfers between this machine and a host whose agent lies: what it can reach, and what not.

The agents are ours with a piece of one module replaced. A module of the sender's
only makes a hostile source; one of the target's, a hostile target.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import engine
from engine import Mode, OnConflict, SilentObserver, Strategy
from tests.rig.hostile import facts
from tests.rig.lying import SEND, Lie, found
from tests.rig.transfers import Run, endpoint


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
@pytest.mark.parametrize("policy", [OnConflict.FAIL, OnConflict.OVERWRITE])
@pytest.mark.parametrize("path", ["../canary/new", "/canary/new", "a/../../canary/new", "a//new"])
def test_a_scanned_path_that_leads_out_of_the_target_writes_nothing(
    tree: Path, run: Run, lie: Lie, path: str, policy: OnConflict, strategy: Strategy
) -> None:
    lie(source_commands=found(("report", "f", 6, ""), (path, "f", 6, "")), source_sender=SEND)
    before = facts(tree)

    with pytest.raises(engine.EngineError) as caught:
        run(strategy=strategy, on_conflict=policy, mode=Mode.MOVE)

    assert caught.value.code in ("PATH_OUTSIDE_ROOT", "VANISHED")
    now = facts(tree)
    del now["b"], before["b"]  # Its time: the staging folder was there.
    assert now == before


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_scanned_file_below_a_scanned_symlink_is_not_written_through_it(
    tree: Path, run: Run, lie: Lie, strategy: Strategy
) -> None:
    canary = str(tree / "canary")
    lie(
        source_commands=found(("way", "l", len(canary), canary), ("way/file", "f", 6, "")),
        source_sender=SEND,
    )
    before = facts(tree / "canary")

    report = run(strategy=strategy, on_conflict=OnConflict.OVERWRITE)

    assert [failure.path for failure in report.failures] == ["way/file"]
    assert facts(tree / "canary") == before
    assert os.readlink(tree / "b" / "way") == canary


def test_a_scanned_path_that_leads_out_is_refused_before_it_is_compared(
    tree: Path, run: Run, lie: Lie
) -> None:
    lie(source_commands=found(("../canary/file", "f", 6, "")), source_sender=SEND)

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
    lie(source_commands=found(*((name, "f", 6, "") for name in names)), source_sender=SEND)

    with pytest.raises(engine.EngineError):
        run(on_conflict=OnConflict.OVERWRITE)

    assert facts(other) == before


# -- parcels that nobody planned -----------------------------------------------

#: The parcel is announced as an archive, under a name of the sender's choice.
AS_ARCHIVE = """
def send(self, head, blob, theirs=b"", inject_fault="", last=False):
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


#: What announces the parcels is kept back, and passed on behind the first of them.
WITHHELD = """
_do_send, _held = Source.do_send, []
def do_relay(self, blob):
    _held.append(blob)
    return {"relayed": 1}
def do_send(self, **command):
    answer = _do_send(self, **command)
    Source.do_relay = lambda self, blob: self._writer.pass_on(blob) or {"relayed": 1}
    for blob in _held:
        self._writer.pass_on(blob)
    return answer
Source.do_relay, Source.do_send = do_relay, do_send
"""


@pytest.mark.parametrize("strategy", [Strategy.AUTO, Strategy.ARCHIVE])
@pytest.mark.parametrize("commands", ["", WITHHELD], ids=["announced", "announced too late"])
def test_a_sender_cannot_choose_the_name_of_the_delivered_file(
    tree: Path, run: Run, lie: Lie, commands: str, strategy: Strategy
) -> None:
    lie(source_sender=AS_ARCHIVE, source_commands=commands)
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
_do_send, _frame = Source.do_send, FrameWriter.frame
def do_send(self, **command):
    held = []
    def frame(outlet, kind, body, blob=b""):
        if kind == END_PARCEL:
            outlet.flush()
            held.append(encode(kind, body, blob))
        else:
            _frame(outlet, kind, body, blob)
    FrameWriter.frame = frame
    answer = _do_send(self, **command)
    body = dict(answer)
    self._context.send({"done": body}, body.pop("blob"))
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


def test_a_parcel_that_the_worker_did_not_ask_for_is_not_published(
    tree: Path, run: Run, lie: Lie
) -> None:
    lie(source_commands=ONE_MORE)

    with pytest.raises(engine.EngineError):
        run(source=endpoint(tree / "a" / "report"), target=endpoint(tree / "b" / "report"))

    assert os.listdir(tree / "b" / "private") == []


#: A while after its last parcel, each stream but the first begins one more that never ends.
LATER = """
import os, threading, time
from engine.agent.wire import DATA, HEAD, HEADER, encode, write_all
_do_send, _init = Source.do_send, Source.__init__
def __init__(self, context):
    _init(self, context)
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


def test_a_proven_file_cannot_be_overwritten_by_another_stream(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = engine.types.ParcelKind
    sizes = dict.fromkeys((kinds.ZIP, kinds.FILE), (1, 1))
    monkeypatch.setattr("engine.parcels.builder.PARCEL_BYTES", sizes)
    for number in range(12):
        (tree / "a" / f"{number}").write_bytes(b"proven" * 200_000)
    lie(source_commands=LATER.replace("FLAG", str(tree / "flag")))

    try:
        # Slow enough for the second stream to be there in time.
        report = run(Slow(), streams=2, strategy=Strategy.FILES, bwlimit=8_000_000)
    except engine.EngineError:
        assert sorted(os.listdir(tree / "b")) == ["private"]
        return

    assert report.streams == 2
    for number in range(12):
        assert (tree / "b" / f"{number}").read_bytes() == b"proven" * 200_000


def test_a_stage_reply_from_the_source_does_not_change_the_target_folder(
    tree: Path, run: Run, lie: Lie
) -> None:
    (tree / "a").chmod(0o777)
    lie(
        source_commands="""
_do_send = Source.do_send
def do_send(self, **command):
    import time
    answer = _do_send(self, **command)
    time.sleep(0.5)
    place = {"fresh": True, "left": False, "transfer_id": "test", "keeps_owners": True}
    place |= {"notes": [], "made": []}
    self._context.send({"done": place, "op": "stage"})
    return answer
Source.do_send = do_send
"""
    )
    (tree / "b").chmod(0o700)

    run()

    assert (tree / "b").stat().st_mode & 0o777 == 0o700
