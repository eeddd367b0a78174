"""What agents and the worker say to each other: lists of entries, and commands under seal."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Mode, Strategy
from engine.agent import wire
from engine.agent.wire import (
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    AgentError,
    Entry,
    Seal,
    decode,
    is_staging,
    message,
    pack_entries,
    staging_name,
    unpack_entries,
)
from engine.connect import bundle
from tests.rig.frames import read_frame
from tests.rig.transfers import Run
from tests.rig.trees import build_small, snapshot

TOP, LOW = (1 << 63) - 1, -(1 << 63)

LISTS: dict[str, list[Entry]] = {
    "nothing": [],
    "one file": [Entry("a", FILE, 1, 2, 0o644, 3)],
    "the top alone": [Entry("", FOLDER, 0, 0, 0o755, 1)],
    "extremes": [Entry("x", FILE, TOP, LOW, 0o7777, (1 << 64) - 1), Entry("y", FILE, 0, TOP, 0, 0)],
    "names that are no text": [
        Entry(os.fsdecode(b"\xff\xfe"), FILE, 1, 2, 0o644, 3),
        Entry("new\nline \u00e4 \u6620 \U0001f3ac", FOLDER, 0, 2, 0o755, 4),
    ],
    "links": [
        Entry("a", FILE, 1, 2, 0o644, 3),
        Entry("b", LINK, 9, 2, 0o777, 4, os.fsdecode(b"\xff/nowhere")),
        Entry("c", HARD_LINK, 0, 2, 0o644, 3, "a"),
    ],
    "attributes": [
        Entry("a", FILE, 1, 2, 0o644, 3, "", bytes(range(256))),
        Entry("b", FILE, 1, 2, 0o644, 4),
        Entry("c", FOLDER, 0, 2, 0o755, 5, "", b"\0\0"),
    ],
    "many": [Entry(f"{n:05}", FILE, n, n * 10**9, 0o600, n) for n in range(10_000)],
}


def test_the_name_of_a_staging_folder_is_known_as_one() -> None:
    name = staging_name("a1b2-key")
    assert name == ".ketter-a1b2-key.part"
    assert is_staging(name)
    assert not is_staging(f"{name}.txt")


@pytest.mark.parametrize("sort", LISTS)
def test_an_entry_list_survives_packing_and_unpacking(sort: str) -> None:
    assert unpack_entries(pack_entries(LISTS[sort])) == LISTS[sort]


def test_a_packed_entry_takes_fewer_than_36_bytes() -> None:
    assert len(pack_entries(LISTS["many"])) / 10_000 < 36


def everything() -> bytes:
    """A list that uses all columns."""
    return pack_entries([entry for sort in LISTS for entry in LISTS[sort][:20]])


def test_a_truncated_entry_list_is_refused() -> None:
    packed = everything()

    for size in range(len(packed)):
        with pytest.raises(AgentError) as caught:
            unpack_entries(packed[:size])
        assert caught.value.code == "AGENT_FAILED"
    with pytest.raises(AgentError):
        unpack_entries(packed + b"\0")


@pytest.mark.parametrize("sort", [sort for sort in LISTS if sort not in ("many", "nothing")])
@pytest.mark.parametrize("field", range(4))
def test_an_entry_list_with_wrong_counts_is_refused(sort: str, field: int) -> None:
    packed = pack_entries(LISTS[sort])
    counts = list(wire._LIST.unpack_from(packed))

    for wrong in (counts[field] + 1, counts[field] - 1, 1 << 31, (1 << 32) - 1):
        counted = [*counts[:field], wrong % (1 << 32), *counts[field + 1 :]]
        with pytest.raises(AgentError) as caught:
            unpack_entries(wire._LIST.pack(*counted) + packed[wire._LIST.size :])
        assert caught.value.code == "AGENT_FAILED"


@pytest.mark.parametrize("kind", [b"x", b"F", b"\0", b" ", b"\xff"])
def test_an_entry_of_unknown_kind_is_refused(kind: bytes) -> None:
    packed = pack_entries(LISTS["links"])
    at = wire._LIST.size

    for place in range(3):
        spoilt = packed[: at + place] + kind + packed[at + place + 1 :]
        with pytest.raises(AgentError):
            unpack_entries(spoilt)


@pytest.mark.parametrize("spoilt", [{"size": -1}, {"size": LOW}, {"mode": 0o10000}])
def test_an_entry_with_an_impossible_size_or_mode_is_refused(spoilt: dict[str, int]) -> None:
    good = LISTS["links"]
    packed = pack_entries([*good, good[0]._replace(**spoilt)])

    with pytest.raises(AgentError, match="damaged"):
        unpack_entries(packed)


MUTATIONS: dict[str, Callable[[random.Random, bytearray], object]] = {
    "a byte": lambda dice, data: data.__setitem__(dice.randrange(len(data)), dice.randrange(256)),
    "an early byte": lambda dice, data: data.__setitem__(dice.randrange(40), dice.randrange(256)),
    "a cut": lambda dice, data: data.__delitem__(slice(dice.randrange(len(data)), None)),
    "a gap": lambda dice, data: data.__delitem__(dice.randrange(len(data))),
    "more": lambda dice, data: data.insert(dice.randrange(len(data)), dice.randrange(256)),
    "a swap": lambda dice, data: data.extend(data[: dice.randrange(8)]),
}


@pytest.mark.parametrize("sort", MUTATIONS)
def test_a_damaged_entry_list_raises_agent_error_or_unpacks_to_valid_entries(sort: str) -> None:
    dice, packed = random.Random(sort), everything()

    for _ in range(3000):
        data = bytearray(packed)
        for _ in range(dice.randrange(1, 4)):
            MUTATIONS[sort](dice, data)
            if len(data) < 41:
                break
        try:
            entries = unpack_entries(bytes(data))
        except AgentError:
            continue
        for entry in entries:  # What gets through can be packed again, and is no nonsense.
            assert entry.size >= 0
            assert entry.kind in (FILE, FOLDER, LINK, HARD_LINK)
        assert unpack_entries(pack_entries(entries)) == entries


@pytest.mark.parametrize("data", [b"[]", b"5", b'"text"', b"null", b"[]\0{}"])
def test_a_message_that_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(AgentError, match="no JSON object"):
        decode(data)


# -- commands under seal ------------------------------------------------------


def body_of(frame: bytes) -> bytes:
    kind, size = wire.HEADER.unpack_from(frame)
    assert (kind, size) == (wire.JSON, len(frame) - wire.HEADER.size)
    return frame[wire.HEADER.size :]


def test_sealed_commands_are_opened_in_the_order_they_were_sent() -> None:
    token = bundle.new_token()
    worker, agent = Seal(token), Seal(token)
    commands = [{"op": "open", "path": os.fsdecode(b"\xff")}, {"op": "clean"}]

    for number, command in enumerate(commands):
        blob = bytes(range(256)) * number
        assert agent.open(body_of(worker.frame(command, blob))) == {**command, "blob": blob}


def other_key(frames: list[bytes]) -> list[bytes]:
    return [body_of(Seal(bundle.new_token()).frame({"op": "remove"}))]


def unsealed(frames: list[bytes]) -> list[bytes]:
    return [message({"op": "remove"})]


def damaged(frames: list[bytes]) -> list[bytes]:
    return [frames[0][:-1] + bytes([frames[0][-1] ^ 1])]


def shorter(frames: list[bytes]) -> list[bytes]:
    return [frames[0][:8]]


def replayed(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[0]]


def reordered(frames: list[bytes]) -> list[bytes]:
    return [frames[1]]


def left_out(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[2]]


FORGERIES = [other_key, unsealed, damaged, shorter, replayed, reordered, left_out]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_replayed_or_reordered_command_is_refused(
    forge: Callable[[list[bytes]], list[bytes]],
) -> None:
    token = bundle.new_token()
    worker, agent = Seal(token), Seal(token)
    bodies = [body_of(worker.frame({"op": "open", "number": n})) for n in range(3)]

    *fine, bad = forge(bodies)

    for body in fine:
        agent.open(body)
    with pytest.raises(AgentError, match="did not send"):
        agent.open(bad)


class Driven:
    """A real agent process, and the worker's end of it in the test's hands."""

    def __init__(self) -> None:
        self.token = bundle.new_token()
        self.seal = Seal(self.token)
        line = [sys.executable, "-I", "-S", "-c", bundle.bootstrap(self.token)]
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._write(bundle.sealed(bundle.program(here=True, of_target=True), self.token))
        said = b""
        while not said.endswith(wire.MAGIC):
            said += self._process.stderr.read(1)
        assert "hello" in self.hear()
        self._write(self.token.encode("ascii") + b"\n")

    def _write(self, data: bytes) -> None:
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def put(self, frame: bytes) -> None:
        """Write a frame into its payload pipe, as its sender could."""
        self._write(frame)

    def hear(self) -> dict[str, Any]:
        """The next thing it says."""
        while True:
            said = decode(read_frame(self._process.stderr)[1])
            if "beat" not in said:
                return said

    def ask(self, op: str, blob: bytes = b"", **arguments: Any) -> dict[str, Any]:
        """A command of the worker's, and the answer."""
        self.put(self.seal.frame({"op": op, **arguments}, blob))
        return self.hear()

    def end(self) -> int:
        """Wait for its end."""
        self._process.stdin.close()
        status = self._process.wait(timeout=10)
        self._process.stderr.close()
        return status


@pytest.fixture(autouse=True)
def own_program() -> Iterator[None]:
    """Programs of this file's making stay in it."""
    yield
    bundle.program.cache_clear()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Driven]:
    """An agent that has the folder tmp_path/b open, and its place in it."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious").write_bytes(b"precious")
    driven = Driven()
    place = {"root": str(tmp_path), "path": "b", "transfer_id": "test", "attempt": 1}
    assert "done" in driven.ask("stage", options={}, **place)
    yield driven
    driven.end()


#: What would cost the worker all that has arrived.
CLEAN = {"op": "clean", "transfer_id": "test", "attempt": 1, "undo": False}


def is_staged(folder: Path) -> bool:
    """Whether its place is still there."""
    return bool(list((folder / "b").glob(".ketter-*")))


def test_the_worker_can_have_an_agent_remove_its_staging_folder(
    agent: Driven, tmp_path: Path
) -> None:
    """What the forged commands below would do, if they were the worker's."""
    answer = agent.ask(**CLEAN)

    assert "done" in answer
    assert not is_staged(tmp_path)


def test_an_agent_at_a_target_refuses_to_remove_source_files(agent: Driven, tmp_path: Path) -> None:
    found = (tmp_path / "b" / "precious").stat()
    entry = Entry("precious", FILE, 8, found.st_mtime_ns, found.st_mode & 0o7777, found.st_ino)

    agent.put(agent.seal.frame({"op": "remove"}, pack_entries([entry])))

    assert agent.hear()["error"][0] == "AGENT_FAILED"
    assert (tmp_path / "b" / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("in_parcel", [False, True])
@pytest.mark.parametrize("sealed", ["not", "by somebody else", "again"])
def test_bytes_that_a_sender_writes_are_never_carried_out_as_a_command(
    agent: Driven, tmp_path: Path, sealed: str, in_parcel: bool
) -> None:
    forged = {
        "not": wire.encode(wire.JSON, CLEAN),
        "by somebody else": Seal(bundle.new_token()).frame(CLEAN),
        "again": carried_out(agent),
    }[sealed]
    if in_parcel:
        entries = pack_entries([Entry("new", FILE, 100, 0, 0o644, 1)])
        agent.put(wire.encode(wire.HEAD, {"kind": "file", "parcel": 1}, entries))
        agent.put(wire.HEADER.pack(wire.DATA, 10) + bytes(10))
    agent.put(forged)

    said = agent.hear()

    assert said["error"][0] == "AGENT_FAILED"
    assert is_staged(tmp_path)
    agent.end()  # It listens to nobody any more.


def carried_out(agent: Driven) -> bytes:
    """A command that the worker has sent, and that the agent has carried out."""
    frame = agent.seal.frame({"op": "sync"})
    agent.put(frame)
    assert "done" in agent.hear()
    return frame


#: How a sender's host may go about it, put in place of the line that writes a parcel's head.
HEAD_LINE = b"        self._out.frame(HEAD, head, theirs or blob)\n"
COMMAND = b"""
        from engine.agent.wire import JSON, encode
        self._out.pass_on(encode(JSON, {"op": "clean", "transfer_id": "test", "attempt": 9}))
"""
OTHER_ENTRIES = b"""
        from engine.agent.wire import pack_entries
        evil = [entry._replace(path="evil-" + entry.path) for entry in entries]
        self._out.frame(HEAD, head, pack_entries(evil))
"""
ONE_MORE = b"""
        from engine.agent.wire import DIGEST, pack_entries
        evil = pack_entries([entries[0]._replace(path="evil", kind="d", size=0)])
        self._out.frame(HEAD, {"kind": "file", "parcel": 99}, evil)
        self._out.frame(END_ENTRY, {})
        self._out.frame(END_PARCEL, {"errors": {}}, bytes(DIGEST))
"""


@pytest.mark.parametrize(
    ("evil", "error"),
    [
        (COMMAND, engine.AgentFailed),
        (OTHER_ENTRIES, engine.AgentFailed),
        (ONE_MORE + HEAD_LINE, engine.AgentFailed),
    ],
)
@pytest.mark.parametrize("mode", Mode)
def test_a_tampered_source_agent_cannot_deliver_more_than_the_plan(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, mode: Mode, evil: bytes, error: Any
) -> None:
    build_small(tmp_path / "a", 5)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "precious").write_bytes(b"precious")
    before = snapshot(tmp_path)
    source_of = bundle.source_of
    assert HEAD_LINE in source_of("source.sender")
    monkeypatch.setattr(bundle, "source_of", lambda name: source_of(name).replace(HEAD_LINE, evil))
    bundle.program.cache_clear()

    with pytest.raises(error):
        run(mode=mode, strategy=Strategy.FILES)

    found = snapshot(tmp_path)
    found[b"b"] = before[b"b"]  # Its time shows that there was a staging folder.
    assert found == before
