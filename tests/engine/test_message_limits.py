"""What a message may hold: one of a lying host costs the worker little, a long honest one fits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import Mode, Phase
from engine.agent.context import Context
from engine.agent.source import commands as source_commands
from engine.agent.source.commands import Source
from engine.agent.wire import (
    MAX_ENTRIES,
    MAX_MESSAGE,
    AgentError,
    Entry,
    pack_entries,
    unpack_entries,
)
from engine.parcels.builder import PARCEL_ENTRIES, ParcelBuilder
from engine.parcels.spool import Spool
from engine.plan import resumed
from engine.plan.on_record import OnRecord
from engine.plan.resumed import Resumed
from engine.plan.reuse import Reuse
from engine.protocol.lists import entries_of
from engine.protocol.messages import (
    MAX_VALUES,
    FilePart,
    StagedEntries,
    StagedParts,
    read_message,
)
from engine.types import Strategy
from tests.rig.lying import Lie, failed_agent, found
from tests.rig.needs import needs_proc
from tests.rig.observers import Meddler
from tests.rig.project import PROJECT
from tests.rig.transfers import Run

#: The worst that a host found to say, as Python that makes a message's body; each is of a size
#: that the worker reads, and of a shape that takes as much memory as it can.
GREEDY = {
    "lists in lists": 'b\'{"failures":[\' + b"[[]]," * 838_000 + b"[]]}"',
    "nested objects": 'b\'{"x":[\' + b",".join([b\'{"":\' * 800 + b"1" + b"}" * 800] * 70) + b"]}"',
    "many objects": 'b\'{"x":[\' + b\'{"":1},\' * 39_000 + b"1]}"',
    "too many objects": 'b\'{"failures":[\' + b\'{"":1},\' * 590_000 + b"{}]}"',
    "numbers": 'b\'{"x":[\' + b"1e9," * 119_000 + b"1]}"',
    "short texts": 'b\'{"x":[\' + b\'"ab",\' * 119_000 + b"1]}"',
    "too many short texts": 'b\'{"failures":[\' + b\'"ab",\' * 830_000 + b"1]}"',
    "commas in texts": 'b\'{"x":[\' + b\'",,",\' * 119_000 + b"1]}"',
    "keys": 'b"{" + b",".join(b\'"%x":1\' % i for i in range(100_000)) + b"}"',
    "a wide text": 'b\'{"error":["X","\' + b"a" * 4_000_000 + b\'\\\\ud83d\\\\ude00"]}\'',
    "text that is not ASCII": '("{\\"x\\":\\"" + "a" * 4_000_000 + chr(0x1f600) + "\\"}").encode()',
    "failures": 'json.dumps({"failures": [["a", "X", "x"]] * 29_000}).encode()',
    "parts": 'json.dumps({"parts": [{"file": ["a", 1 << 50, 1, 1], "upto": 0, "slices":'
    " [[2 * i, 1] for i in range(39_000)]}]}).encode()",
    "a list": "b'{\"entries\":1}\\0' + bytes(24 << 20)",
    "a list of many": "b'{\"entries\":1}\\0' + pack_entries([ENTRY] * 600_000)",
    "staged entries": 'b\'{"held":1,"list":%d}\\0\' % (23 << 20) + bytes(23 << 20)',
}
_MEASURE = """
import json, os, sys
from engine.agent.wire import AgentError, Entry, pack_entries
from engine.protocol.messages import ScannedEntries, StagedEntries, read_message
from engine.protocol.lists import entries_of
from tests.rig.hostile import peak_kib
ENTRY = Entry("", "f", 0, 0, 0, 0)
for case in CASES:
    read, write = os.pipe()
    if not os.fork():  # Another process makes the body: what that takes does not count.
        with open(write, "wb") as made:
            made.write(eval(case))
        os._exit(0)
    os.close(write)
    if not os.fork():
        body = open(read, "rb", buffering=0).readall()
        before = peak_kib()
        try:
            message = read_message(body)
            if isinstance(message, ScannedEntries | StagedEntries):
                entries_of(message.entries)
        except AgentError:
            pass
        print(peak_kib() - before, flush=True)
        os._exit(0)
    os.close(read)
    os.wait()
    os.wait()
"""


@needs_proc
def test_no_message_costs_the_worker_more_than_32_mib_beside_itself() -> None:
    code = _MEASURE.replace("CASES", repr(list(GREEDY.values())))

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, timeout=120, check=True
    )

    costs = dict(zip(GREEDY, map(int, ended.stdout.split()), strict=True))
    assert {sort: kib for sort, kib in costs.items() if kib > 32 << 10} == {}


def test_commas_in_names_do_not_count_as_values() -> None:
    failures = [["a" + "," * 100, "VANISHED", "x"]] * 2000
    assert sum(path.count(",") for path, _, _ in failures) > MAX_VALUES

    read_message(json.dumps({"failures": failures}).encode())


# -- lists of entries ------------------------------------------------------------


def entry(path: str = "a", link: str = "", meta: bytes = b"") -> Entry:
    return Entry(path, "l" if link else "f", 0, 1, 0o644, 1, link, meta)


@pytest.mark.parametrize(
    "key", [b'{"entries":1}', b'{"held":1,"list":%d}', b'{"done":{"hard_links":0},"op":"stat"}']
)
def test_a_list_of_more_entries_than_any_agent_sends_is_refused(key: bytes) -> None:
    blob = pack_entries([entry()] * (MAX_ENTRIES + 1))
    body = key.replace(b"%d", b"%d" % len(blob)) + b"\0" + blob

    with pytest.raises(AgentError, match="a list of more than"):
        read_message(body)


@pytest.mark.parametrize("one", [entry("a" * 32_769), entry(link="a" * 65_537)])
def test_a_path_or_link_that_is_longer_than_any_is_refused(one: Entry) -> None:
    with pytest.raises(AgentError, match="protocol error: a path of over"):
        entries_of(pack_entries([entry(), one]))


def test_a_source_that_lists_a_path_of_many_kilobytes_fails_as_an_agent(
    tree: Path, run: Run, lie: Lie
) -> None:
    lie(source_commands=found(("a/" * 20_000 + "b", "f", 1, "")))

    assert "protocol error" in failed_agent(run)


# -- honest ones fit ---------------------------------------------------------------


class Said(Context):
    """Keeps what an agent says."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.messages: list[tuple[dict[str, Any], bytes]] = []
        super().open("/", str(folder).lstrip("/"), make=False)

    def send(self, body: dict[str, Any], blob: bytes = b"") -> None:
        self.messages.append((body, blob))


def scan(folder: Path) -> list[tuple[dict[str, Any], bytes]]:
    said = Said(folder)
    Source(said).do_scan([], "keep", "copy", False, 0o777, b"")
    return said.messages


def test_a_scan_ends_a_list_by_the_length_of_paths_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_commands, "LIST_BYTES", 1000)
    for number in range(40):
        (tmp_path / f"{number}").symlink_to("x" * 300)

    lists = [unpack_entries(blob) for body, blob in scan(tmp_path) if "entries" in body]

    assert sum(map(len, lists)) == 40
    assert max(sum(len(one.link) for one in entries) for entries in lists) <= 1300


def test_2500_failures_with_long_paths_of_wide_letters_are_all_reported(
    tmp_path: Path, run: Run
) -> None:
    """JSON has six bytes for each letter, twice; the worker reads 4 MiB."""
    folder = tmp_path / "a"
    for _ in range(8):
        folder = folder / ("長い名前" * 16)
    folder.mkdir(parents=True)
    for number in range(2500):
        (folder / f".ketter-{number}.part").touch()
    (tmp_path / "a" / "good").touch()

    report = run()

    assert (report.status, report.files, report.failures_total) == ("partial", 1, 2500)


@pytest.fixture
def planner() -> Iterator[ParcelBuilder]:
    spool = Spool()
    yield ParcelBuilder(Strategy.AUTO, spool)
    spool.close()


def long_folder(top: Path) -> Path:
    """A folder whose path has 1000 wide letters; JSON has six bytes for each."""
    folder = top
    for _ in range(16):
        folder = folder / ("長い名前" * 16)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("strategy", [Strategy.ZIP, Strategy.FILES])
def test_a_vanished_folder_with_a_long_path_is_counted_and_the_rest_arrives(
    tmp_path: Path, run: Run, strategy: Strategy
) -> None:
    folder = long_folder(tmp_path / "a")
    for number in range(2500):
        (folder / f"{number}").touch()
    (tmp_path / "a" / "stays").touch()

    report = run(
        Meddler(Phase.TRANSFER, lambda: shutil.rmtree(tmp_path / "a" / ("長い名前" * 16))),
        strategy=strategy,
    )

    assert (report.status, report.files) == ("partial", 1)


def test_a_move_names_all_entries_with_long_paths_that_stay(tmp_path: Path, run: Run) -> None:
    folder = long_folder(tmp_path / "a")
    for number in range(1200):
        (folder / f"{number}").touch()

    def change() -> None:
        for path in folder.iterdir():
            os.utime(path, ns=(7, 7))

    report = run(Meddler(Phase.REMOVE_SOURCE, change), mode=Mode.MOVE)

    assert (report.status, report.failures_total) == ("partial", 1200)
    assert len(list(folder.iterdir())) == 1200


def test_further_names_of_files_lie_in_the_spool_in_bounded_parcels(
    planner: ParcelBuilder,
) -> None:
    links = [Entry(f"l{i}", "h", 0, 0, 0o644, 1, "f" * 1000) for i in range(2 * PARCEL_ENTRIES)]

    for at in range(0, len(links), 2500):
        planner.add(links[at : at + 2500])
        assert len(planner._hard_links._entries) < PARCEL_ENTRIES
    planner.finish()

    assert [one for parcel in planner.last_parcels for one in planner.entries(parcel)] == links
    for parcel in planner.last_parcels:
        entries = planner.entries(parcel)
        assert parcel.files == len(entries)
        assert len(pack_entries(entries)) < MAX_MESSAGE // 4


def test_a_parcel_ends_by_the_length_of_its_links(planner: ParcelBuilder) -> None:
    planner.add(entry(f"{number}", "x" * 4000) for number in range(3000))
    planner.finish()

    assert len(planner.parcels) == 3


# -- what an earlier attempt left --------------------------------------------------------


@pytest.fixture
def left() -> Iterator[Resumed]:
    spool = Spool()
    yield Resumed(spool, OnRecord(None), lambda entry: entry)
    spool.close()


def staged(count: int) -> StagedEntries:
    return StagedEntries(pack_entries([entry(f"{i}") for i in range(count)]), b"x" * 32 * count)


@pytest.mark.parametrize("size", [50, 1])
def test_a_target_that_lists_arrived_entries_without_end_is_refused(
    left: Resumed, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """However many a list has: a list takes memory, too."""
    monkeypatch.setattr(resumed, "MOST_ENTRIES", 1000)
    for _ in range(1000 // max(size, resumed.LEAST)):
        left.on_message(staged(size))

    with pytest.raises(AgentError, match=r"protocol error at the target: more than 1,000 entries"):
        left.on_message(staged(size))


def test_a_target_that_lists_pieces_of_files_without_end_is_refused(
    left: Resumed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumed, "MOST_RUNS", 1000)
    part = FilePart("a", 1 << 40, 1, 1, 0, tuple((2 * i, 1) for i in range(400)))
    for _ in range(2):
        left.on_message(StagedParts((part,)))

    with pytest.raises(AgentError, match="1,000 pieces"):
        left.on_message(StagedParts((part,)))


def test_stale_entries_are_discarded_in_lists_of_2500() -> None:
    asked: list[list[str]] = []

    def request(command: Any, blob: bytes) -> None:
        asked.append([one.path for one in unpack_entries(blob)])

    def sort(found: Any, stale: Any) -> None:
        stale([entry(f"{i}") for i in range(6000)])

    inbox = SimpleNamespace(check=lambda: None)
    session: Any = SimpleNamespace(target=SimpleNamespace(request=request), inbox=inbox)
    what: Any = SimpleNamespace(sort=sort, parts={})
    planner: Any = SimpleNamespace(large_entries=[])
    session.aim = SimpleNamespace(at_target=lambda one: one)
    unused: Any = None

    Reuse(session, what, OnRecord(None), planner, unused, unused).staged()

    assert [len(paths) for paths in asked] == [2500, 2500, 1000]
