"""The zip parcel on the wire: a standard archive, and no other kind of archive gets in."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from engine.agent import wire
from engine.agent.receiver import Receiver
from engine.agent.scan import Filter, scan
from engine.agent.sender import Outlet, Sender
from engine.agent.tree import Tree
from engine.agent.wire import AgentError, Entry
from engine.agent.zipstream import ZipWriter
from tests.rig.trees import build_mixed, build_small, snapshot


def entries_of(root: Path) -> tuple[Tree, list[Entry]]:
    tree = Tree(os.open(root, os.O_RDONLY))
    entries: list[Entry] = []
    scan(tree, Filter((), ()), entries.append, lambda *failure: pytest.fail(str(failure)))
    return tree, entries


def frames_of(root: Path, entries: list[Entry], tree: Tree, tmp_path: Path) -> bytes:
    """What a sender puts on the wire for one zip parcel."""
    quiet, _keep = os.pipe()
    wire_file = tmp_path / "wire"
    fd = os.open(wire_file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        Sender(tree, Outlet(fd, quiet)).send("zip", entries)
    finally:
        for open_fd in (fd, quiet, _keep):
            os.close(open_fd)
    return wire_file.read_bytes()


def payload_of(frames: bytes) -> bytes:
    stream, payload = io.BytesIO(frames), b""
    while True:
        kind, body = wire.read_frame(stream)
        if kind != wire.DATA:
            return payload
        payload += body


def test_the_payload_is_a_standard_archive(tmp_path: Path) -> None:
    build_mixed(tmp_path / "a")
    (tmp_path / "a" / "link_to_folder").unlink()  # Info-ZIP would write through it when testing.
    tree, entries = entries_of(tmp_path / "a")
    archive = tmp_path / "teed.zip"
    archive.write_bytes(payload_of(frames_of(tmp_path / "a", entries, tree, tmp_path)))
    tree.close()

    with zipfile.ZipFile(archive) as read:
        assert read.testzip() is None
        assert len(read.namelist()) == len(entries)
        assert read.read("tool.sh") == b"#!/bin/sh\n"
    for tool in (["unzip", "-tqq"], ["bsdtar", "-tf"]):
        if shutil.which(tool[0]):
            done = subprocess.run([*tool, archive], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_many_members_and_a_streamed_one_make_a_zip64_archive(tmp_path: Path) -> None:
    pieces: list[bytes] = []
    archive = ZipWriter(lambda *parts: pieces.extend(bytes(part) for part in parts))
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


def receive(tmp_path: Path, payload: bytes, expected: list[Entry]) -> Receiver:
    """Feed a parcel with this payload to a receiver whose staging folder is tmp_path/staging."""
    parts = [payload[at : at + 1000] for at in range(0, len(payload), 1000)]
    frames = b"".join(wire.HEADER.pack(wire.DATA, len(part)) + part for part in parts)
    frames += wire.encode(wire.END_PARCEL, {})
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    tree = Tree(os.open(staging, os.O_RDONLY))
    receiver = Receiver(tree, lambda done, entries: None)
    try:
        receiver.receive(io.BytesIO(frames), "zip", expected)
    finally:
        tree.close()
    return receiver


def zipped(*members: tuple[str, str, bytes]) -> bytes:
    """An archive of (path, kind, content)."""
    pieces: list[bytes] = []
    archive = ZipWriter(lambda *parts: pieces.extend(bytes(part) for part in parts))
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
}


@pytest.mark.parametrize("sort", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside(tmp_path: Path, sort: str) -> None:
    payload, expected = HOSTILE[sort]

    if sort == "a link, then something below it":
        assert receive(tmp_path, payload, expected).errors["1"]
    else:
        with pytest.raises(AgentError) as caught:
            receive(tmp_path, payload, expected)
        assert caught.value.code in ("BAD_ARCHIVE", "PATH_OUTSIDE_ROOT")

    assert set(os.listdir(tmp_path)) == {"staging"}
    assert set(os.listdir(tmp_path / "staging")) <= {"a"}


def test_what_a_sender_packs_a_receiver_unpacks(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 50)
    build_mixed(tmp_path / "a")
    tree, entries = entries_of(tmp_path / "a")
    payload = payload_of(frames_of(tmp_path / "a", entries, tree, tmp_path))
    tree.close()

    receiver = receive(tmp_path, payload, entries)

    assert receiver.errors == {}
    assert all(receiver.digests)
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
