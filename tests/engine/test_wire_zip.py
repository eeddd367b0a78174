"""The zip parcel on the wire: a standard archive, and no other kind of archive gets in."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path

import pytest

from engine.agent import wire
from engine.agent.reader import FrameReader
from engine.agent.source.filters import Filter
from engine.agent.source.paced_writer import FrameWriter
from engine.agent.source.scan import Scanner, Wanted
from engine.agent.source.sender import Sender
from engine.agent.source.zip_writer import ZipWriter
from engine.agent.target.journal import Journal
from engine.agent.target.receiver import Receiver
from engine.agent.target.staged_files import WriteOptions
from engine.agent.tree import Tree
from engine.agent.wire import DIGEST, NO_DIGEST, AgentError, Entry, pack_entries
from tests.rig.frames import read_frame
from tests.rig.trees import build_mixed, build_small, snapshot


def entries_of(root: Path) -> tuple[Tree, list[Entry]]:
    tree = Tree(os.open(root, os.O_RDONLY))
    entries: list[Entry] = []
    wanted = Wanted(Filter(()))
    Scanner(tree, wanted, entries.append, lambda *failure: pytest.fail(str(failure))).scan()
    return tree, entries


def frames_of(root: Path, entries: list[Entry], tree: Tree, tmp_path: Path) -> bytes:
    """What a sender puts on the wire for one zip parcel."""
    quiet, _keep = os.pipe()
    wire_file = tmp_path / "wire"
    fd = os.open(wire_file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        sender = Sender(tree, FrameWriter(fd, quiet))
        sender.send({"kind": "zip", "parcel": 1}, pack_entries(entries))
    finally:
        for open_fd in (fd, quiet, _keep):
            os.close(open_fd)
    return wire_file.read_bytes()


def payload_of(frames: bytes) -> tuple[bytes, bytes]:
    """What is in the frames of a parcel, and the sender's digests after it."""
    stream, payload = io.BytesIO(frames), b""
    assert read_frame(stream)[0] == wire.HEAD
    while True:
        kind, body = read_frame(stream)
        if kind != wire.DATA:
            assert (kind, stream.read()) == (wire.END_PARCEL, b"")
            return payload, wire.decode(body)["blob"]
        payload += body


def test_the_zip_writer_makes_a_zip64_archive_of_many_and_streamed_members(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    archive = ZipWriter(lambda part: pieces.append(bytes(part)))
    for number in range(70_000):
        archive.add(Entry(f"f{number}", "f", 1, number * 10**12, 0o644, 0), zlib.crc32(b"x"), b"x")
    archive.start(Entry("streamed", "f", 5, 0, 0o644, 0))
    archive.content(b"hello")
    archive.finish(zlib.crc32(b"hello"))
    archive.close()

    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as read:
        assert len(read.namelist()) == 70_001
        assert read.read("streamed") == b"hello"
        assert read.getinfo("f5").date_time[:3] == (1980, 1, 1)


def receive(
    tmp_path: Path, payload: bytes, expected: list[Entry], digests: bytes | None = None
) -> Receiver:
    """Feed a parcel with this payload to a receiver whose staging folder is tmp_path/staging.

    Its sender has proven nothing if no digests are given.
    """
    parts = [payload[at : at + 1000] for at in range(0, len(payload), 1000)]
    frames = b"".join(wire.HEADER.pack(wire.DATA, len(part)) + part for part in parts)
    digests = NO_DIGEST * len(expected) if digests is None else digests
    (tmp_path / "came").write_bytes(frames + wire.encode(wire.END_PARCEL, {}, digests))
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    tree = Tree(os.open(staging, os.O_RDONLY))
    beside = os.open(tmp_path, os.O_RDONLY)
    journal = Journal(beside, "this machine")
    came = os.open(tmp_path / "came", os.O_RDONLY)
    receiver = Receiver(tree, tree, journal, WriteOptions(), lambda done: None)
    head = {"kind": "zip", "parcel": 1, "blob": pack_entries(expected)}
    try:
        receiver.receive(FrameReader(came), head)
    finally:
        journal.close()
        tree.close()
        os.close(came)
        os.close(beside)
    return receiver


def zipped(*members: tuple[str, str, bytes]) -> bytes:
    """An archive of (path, kind, content)."""
    pieces: list[bytes] = []
    archive = ZipWriter(lambda part: pieces.append(bytes(part)))
    for path, kind, content in members:
        archive.add(Entry(path, kind, len(content), 0, 0o644, 0), zlib.crc32(content), content)
    archive.close()
    return b"".join(pieces)


def entry(path: str, size: int = 1, kind: str = "f") -> Entry:
    return Entry(path, kind, size, 0, 0o644, 0)


HOSTILE: dict[str, tuple[bytes, list[Entry]]] = {
    "a name nobody announced": (zipped(("b", "f", b"x")), [entry("a")]),
    "dot-dot": (zipped(("../b", "f", b"x")), [entry("../b")]),
    "absolute": (zipped(("/b", "f", b"x")), [entry("/b")]),
    "twice the same": (zipped(("a", "f", b"x"), ("a", "f", b"y")), [entry("a")]),
    "another size": (zipped(("a", "f", b"xyz")), [entry("a", 1)]),
    "more than announced": (zipped(("a", "f", b"x"), ("b", "f", b"y")), [entry("a")]),
    "a link, then something below it": (
        zipped(("a", "l", b"/tmp"), ("a/b", "f", b"x")),
        [entry("a", 4, "l"), entry("a/b")],
    ),
    "ends early": (zipped(("a", "f", b"x"))[:20], [entry("a")]),
    "compressed": (
        zipped(("a", "f", b"x"))[:8] + b"\x08" + zipped(("a", "f", b"x"))[9:],
        [entry("a")],
    ),
    "nothing at all": (b"", [entry("a")]),
    "a tail without end": (zipped(("a", "f", b"x")) + bytes(1 << 20), [entry("a")]),
}


@pytest.mark.parametrize("sort", HOSTILE)
def test_a_hostile_zip_parcel_writes_nothing_outside_the_staging_folder(
    tmp_path: Path, sort: str
) -> None:
    payload, expected = HOSTILE[sort]

    if sort == "a link, then something below it":
        assert receive(tmp_path, payload, expected).errors["1"]
    else:
        with pytest.raises(AgentError) as caught:
            receive(tmp_path, payload, expected)
        assert caught.value.code in ("BAD_ARCHIVE", "PATH_OUTSIDE_ROOT")

    assert set(os.listdir(tmp_path)) == {"staging", "came", "journal"}
    assert set(os.listdir(tmp_path / "staging")) <= {"a"}


def test_a_sender_packs_a_standard_archive_that_a_receiver_unpacks(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 50)
    build_mixed(tmp_path / "a")
    tree, entries = entries_of(tmp_path / "a")
    payload, digests = payload_of(frames_of(tmp_path / "a", entries, tree, tmp_path))
    tree.close()

    receiver = receive(tmp_path, payload, entries, digests)

    with zipfile.ZipFile(io.BytesIO(payload)) as read:
        assert read.testzip() is None
        assert len(read.namelist()) == len(entries)
        assert read.read("tool.sh") == b"#!/bin/sh\n"
    assert receiver.errors == {}
    assert receiver.digests == digests
    assert NO_DIGEST not in [digests[at : at + DIGEST] for at in range(0, len(digests), DIGEST)]
    files = {name: e for name, e in snapshot(tmp_path / "a").items() if e.kind == "file"}
    staged = snapshot(tmp_path / "staging")
    assert {name: staged[name] for name in files} == files


def test_a_flipped_byte_changes_the_receivers_digest(tmp_path: Path) -> None:
    payload = zipped(("a", "f", b"content"))
    spoilt = payload.replace(b"content", b"cOntent", 1)

    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
    good = receive(tmp_path / "1", payload, [entry("a", 7)])
    bad = receive(tmp_path / "2", spoilt, [entry("a", 7)])

    assert good.digests != bad.digests


@pytest.mark.parametrize("digests", [b"", bytes(DIGEST - 1), bytes(DIGEST + 1), bytes(2 * DIGEST)])
def test_a_parcel_without_a_digest_for_each_entry_is_refused(
    tmp_path: Path, digests: bytes
) -> None:
    with pytest.raises(AgentError) as caught:
        receive(tmp_path, zipped(("a", "f", b"x")), [entry("a")], digests)

    assert caught.value.code == "BAD_ARCHIVE"
