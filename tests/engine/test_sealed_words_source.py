"""Commands with the worker's own seal that name other places: a source's agent keeps to its one.

It writes nothing, reads nothing outside its folder, and removes nothing but what was scanned, in a
move. `test_sealed_words` has the same of a target's agent.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.agent import wire
from engine.agent.main import Agent
from engine.agent.reader import FrameReader
from engine.agent.source.commands import Source
from engine.agent.source.paced_writer import FrameWriter
from engine.agent.wire import Entry, Seal, pack_entries, unpack_entries
from engine.protocol.commands import COMMANDS
from tests.rig.hostile import TOKEN, ending, facts

SECRET = b"what lies beside the source"
FILE = b"source/file"
#: An entry's time, in ns.
TIME = 5


class SourcePlace:
    """A source's agent in this process, opened for a folder with traps in it and around it."""

    def __init__(self, root: Path, *, moves: bool = True) -> None:
        self.root = root
        for folder in ("canary/folder", "canary/empty", "source/folder", "source/empty"):
            (root / folder).mkdir(parents=True)
        for path in ("canary/file", "canary/folder/file"):
            (root / path).write_bytes(SECRET)
        for path in ("file", "other", "folder/file", "folder/sister"):
            (root / "source" / path).write_bytes(FILE)
        (root / "source/out").symlink_to("../canary")
        (root / "source/out_file").symlink_to(root / "canary/file")
        os.mkfifo(root / "source/pipe")
        for path in ("canary/file", "canary/folder/file", "source/file", "source/other",
                     "source/folder/file", "source/folder/sister"):  # fmt: skip
            os.utime(root / path, ns=(TIME, TIME))
        # What is written to a pipe stays there until a reader takes it.
        self.pipe = os.open(root / "source/pipe", os.O_RDWR | os.O_NONBLOCK)
        os.write(self.pipe, FILE)
        os.utime(root / "source/pipe", ns=(TIME, TIME))
        self.said: list[tuple[dict[str, Any], bytes]] = []
        self.agent = Agent(TOKEN, "source")
        self.agent._context.send = lambda body, blob=b"": self.said.append((body, blob))  # type: ignore[method-assign]
        self._payload = tempfile.TemporaryFile()  # noqa: SIM115 - see `close`
        self._idle = os.pipe()
        role = Source(self.agent._context)
        role._writer = FrameWriter(self._payload.fileno(), self._idle[0])
        self.agent._roles["source"] = role
        self._seal = Seal(TOKEN)
        self.take("open", root=str(root), path="source", removes=moves)
        assert self.errors() == []
        self.said.clear()
        self._before = facts(root)

    def take(self, op: str, blob: bytes = b"", **arguments: Any) -> None:
        """Hand in a command under the worker's seal; only an orderly end is none of a bug's."""
        with tempfile.TemporaryFile() as line:
            line.write(self._seal.frame({"op": op, **arguments}, blob))
            line.flush()
            os.lseek(line.fileno(), 0, os.SEEK_SET)
            inlet = self.agent._reader = FrameReader(line.fileno())
            self.ended = ending(lambda: self._one(inlet))

    def _one(self, inlet: FrameReader) -> None:
        kind, body = inlet.frame()
        assert kind == wire.JSON
        self.agent._carry_out(self.agent._seal.open(body))

    def errors(self) -> list[str]:
        """The codes of what was refused: a whole command, or an entry of it."""
        codes = []
        for body, _ in self.said:
            if "error" in body:
                codes.append(body["error"][0])
            done = body.get("done", {})
            codes += [code for code, _ in done.get("errors", {}).values()]
            codes += [code for _, code, _ in [*done.get("kept", []), *done.get("problems", [])]]
        return codes

    def payload(self) -> bytes:
        """What was sent to the target."""
        return os.pread(self._payload.fileno(), 1 << 20, 0)

    def untouched(self) -> None:
        """Fail if anything is not as it was, or if the content of the canary was said."""
        assert facts(self.root) == self._before
        assert os.read(self.pipe, 100) == FILE, "a pipe was read"
        digest = hashlib.sha256(SECRET).digest()
        for said in (self.payload(), *(repr(body).encode() + blob for body, blob in self.said)):
            assert SECRET not in said
            assert digest not in said
            assert digest.hex().encode() not in said

    def close(self) -> None:
        """Give back all descriptors."""
        self._payload.close()
        for fd in (*self._idle, self.pipe):
            os.close(fd)
        if self.agent._context._tree:
            self.agent._context._tree.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SourcePlace]:
    place = SourcePlace(tmp_path)
    yield place
    place.close()


def entry(root: Path, path: str, **more: Any) -> Entry:
    """An entry as a scan finds it where `like` (the path itself, unless named) lies."""
    like = more.pop("like", path)
    ino = more.pop("ino", None)
    if ino is None:
        ino = os.lstat(root / "source" / like).st_ino
    return Entry(path, "f", len(FILE), TIME, 0o644, ino)._replace(**more)


#: Entries that are not the source's, or not as they were scanned: how each is made.
ENTRIES: dict[str, dict[str, Any]] = {
    "out by dots": {"path": "../canary/file"},
    "out by dots in between": {"path": "folder/../../canary/file"},
    "an absolute name": {"path": "/etc/passwd", "like": "file"},
    "an absolute name below it": {"path": "folder//file", "like": "file"},
    "through a link": {"path": "out/file"},
    "a link as a file": {"path": "out_file"},
    "the top": {"path": "..", "like": "file"},
    "itself": {"path": ".", "like": "."},
    "no name": {"path": "", "like": "."},
    "a NUL": {"path": "file\0", "like": "file"},
    "a pipe as a file": {"path": "pipe"},
    "a folder as a file": {"path": "folder"},
    "another entry's inode": {"path": "file", "like": "other"},
    "another size": {"path": "file", "size": 4},
    "another time": {"path": "file", "mtime_ns": 6},
    "a further name of another size": {"path": "file", "kind": "h", "size": 4, "link": "other"},
    "a file as a link": {"path": "file", "kind": "l", "link": "x"},
}
#: Those that are read where `link` says, as a file behind a link that is followed.
LINKS: dict[str, dict[str, Any]] = {
    "behind a link, by dots": {"path": "file", "link": "../canary/file"},
    "behind a link, by root": {"path": "file", "link": "/etc/passwd"},
    "behind a link, by a link": {"path": "file", "link": "out/file"},
}
#: Those that are sent without content: what lies there is not read.
NO_CONTENT = "a further name of another size"


def listed(root: Path, sort: str) -> bytes:
    """The list of one entry that is not as it was scanned."""
    return pack_entries([entry(root, **{**ENTRIES, **LINKS}[sort])])


@pytest.mark.parametrize("sort", [*ENTRIES, *LINKS])
@pytest.mark.parametrize("kind", ["zip", "file", "range", "archive"])
def test_a_source_sends_no_entry_that_is_not_its_own(
    place: SourcePlace, tmp_path: Path, kind: str, sort: str
) -> None:
    blob = listed(tmp_path, sort)
    head = {"kind": kind, "parcel": 1, "slices": [[0, 4]], "name": "../x.zip"}

    place.take("send", blob, head=head, last=kind == "archive")

    if sort != NO_CONTENT:
        assert place.errors(), place.said
    assert FILE[:4] not in place.payload().replace(blob, b"")
    place.untouched()


@pytest.mark.parametrize("sort", [*ENTRIES, *LINKS])
def test_a_source_reads_no_entry_that_is_not_its_own_for_its_digest(
    place: SourcePlace, tmp_path: Path, sort: str
) -> None:
    place.take("hash", listed(tmp_path, sort), at_source=True)

    place.untouched()


@pytest.mark.parametrize("sort", ENTRIES)
def test_a_source_removes_no_entry_that_is_not_as_it_was_scanned(
    place: SourcePlace, tmp_path: Path, sort: str
) -> None:
    place.take("remove", listed(tmp_path, sort))

    assert place.errors(), place.said
    place.untouched()


@pytest.mark.parametrize(
    "path",
    [
        "../canary/empty",
        "/",
        "..",
        ".",
        "",
        "out",
        "out/empty",
        "pipe",
        "file",
        "folder",
        "empty\0",
    ],
)
def test_a_source_removes_no_folder_that_is_not_its_own_and_empty(
    place: SourcePlace, path: str
) -> None:
    blob = pack_entries([Entry(path, "d", 0, TIME, 0o755, 0)])

    place.take("remove_folders", blob)
    place.take("remove", blob)

    place.untouched()


def test_a_source_removes_no_entry_without_the_number_that_its_scan_has_found(
    place: SourcePlace, tmp_path: Path
) -> None:
    """Where inodes have numbers: size and time are those of many a file."""
    place.take("remove", pack_entries([entry(tmp_path, "file", ino=0)]))

    assert place.errors() == ["SOURCE_CHANGED"]
    place.untouched()


@pytest.mark.parametrize("op", ["remove", "remove_folders"])
def test_a_source_that_was_opened_for_a_copy_removes_nothing(tmp_path: Path, op: str) -> None:
    place = SourcePlace(tmp_path, moves=False)
    own = entry(tmp_path, "file")
    if op == "remove_folders":
        own = Entry("empty", "d", 0, TIME, 0o755, 0)
    again: dict[str, Any] = {"root": str(tmp_path), "path": "source", "removes": True}

    place.take(op, pack_entries([own]))
    place.take("open", **again)
    place.take(op, pack_entries([own]))

    assert place.errors() == ["AGENT_FAILED"] * 2
    place.untouched()
    place.close()


def test_a_source_that_was_opened_to_be_moved_removes_what_was_scanned(
    place: SourcePlace, tmp_path: Path
) -> None:
    """So that the refusals above are those of what was asked, not of the command."""
    place.take("remove", pack_entries([entry(tmp_path, "file")]))
    place.take("remove_folders", pack_entries([Entry("empty", "d", 0, TIME, 0o755, 0)]))

    assert place.errors() == []
    assert not (tmp_path / "source/file").exists()
    assert not (tmp_path / "source/empty").exists()


@pytest.mark.parametrize("symlinks", ["keep", "follow", "skip"])
def test_a_scan_lists_nothing_outside_whatever_it_is_asked(
    place: SourcePlace, symlinks: str
) -> None:
    place.take(
        "scan",
        filters=[["include", "out/**"], ["include", "canary/**"], ["include", "**"]],
        symlinks=symlinks,
        hard_links="keep",
        xattrs=True,
        mode_bits=0o7777,
    )

    entries = [
        one for body, blob in place.said if "entries" in body for one in unpack_entries(blob)
    ]
    assert [one.path for one in entries]
    assert not [one.path for one in entries if one.kind == "f" and one.size != len(FILE)]
    assert not [one.path for one in entries if one.path.startswith("out/")]
    place.untouched()


#: Commands that name another place, and the code of the refusal. "R" is the folder of both.
ELSEWHERE: dict[str, tuple[str, dict[str, Any], str]] = {
    "another root": ("open", {"root": "/", "path": "etc"}, "AGENT_FAILED"),
    "above the place": ("open", {"root": "R", "path": ""}, "AGENT_FAILED"),
    "below the place": ("open", {"root": "R", "path": "source/folder"}, "AGENT_FAILED"),
    "beside the place": ("open", {"root": "R", "path": "canary"}, "AGENT_FAILED"),
    "out by dots": ("open", {"root": "R", "path": "source/../canary"}, "AGENT_FAILED"),
    "out by a link": ("open", {"root": "R", "path": "source/out"}, "AGENT_FAILED"),
    "another real root": (
        "open",
        {"root": "R", "path": "source", "real_root": "/"},
        "ROOT_MOVED",
    ),
    "another inspection": ("inspect", {"root": "/", "path": "etc"}, "AGENT_FAILED"),
    "an inspection above": ("inspect", {"root": "R", "path": ""}, "AGENT_FAILED"),
    "a real path without its root": ("sync", {"real_root": "/"}, "AGENT_FAILED"),
    "a stat by dots": ("stat", {"path": "../canary/file"}, "PATH_OUTSIDE_ROOT"),
    "a stat by root": ("stat", {"path": "/etc/passwd"}, "PATH_OUTSIDE_ROOT"),
    "a stat of the top": ("stat", {"path": ".."}, "PATH_OUTSIDE_ROOT"),
    "a stat by a link": ("stat", {"path": "out/file"}, "IO_ERROR"),
    "no command": ("_carry_out", {}, "AGENT_FAILED"),
    "the constructor": ("__init__", {}, "AGENT_FAILED"),
    "another transfer": ("clean", {"transfer_id": "x", "attempt": 1, "undo": True}, "AGENT_FAILED"),
}


@pytest.mark.parametrize("sort", ELSEWHERE)
def test_a_sealed_command_that_names_another_place_reads_and_changes_nothing(
    place: SourcePlace, tmp_path: Path, sort: str
) -> None:
    op, arguments, code = ELSEWHERE[sort]
    if arguments.get("root") == "R":
        arguments = {**arguments, "root": str(tmp_path)}

    place.take(op, **arguments)

    assert place.errors() == [code]
    place.untouched()


#: The commands of a target; what arrives as one of them has no method at a source.
OF_A_TARGET = sorted(
    COMMANDS.keys()
    - {"inspect", "open", "stat", "hash", "sync", "scan", "send", "rate", "relay"}
    - {"remove", "remove_folders"}
)


@pytest.mark.parametrize("op", OF_A_TARGET)
def test_a_source_has_no_command_that_writes(place: SourcePlace, tmp_path: Path, op: str) -> None:
    place.take(
        op,
        pack_entries([entry(tmp_path, "file")]),
        root=str(tmp_path),
        path="source",
        transfer_id="t",
        attempt=1,
        options={},
        head={"kind": "file", "parcel": 1},
        name="x",
        policy="overwrite",
    )

    assert place.errors() == ["AGENT_FAILED"]
    assert place.payload() == b""
    place.untouched()


@pytest.mark.parametrize(
    "steps",
    [
        [("inspect", "source"), ("open", "")],
        [("inspect", "source/folder"), ("inspect", "source"), ("inspect", ""), ("open", "")],
        [("inspect", "source/out_to_file"), ("inspect", "source"), ("inspect", ""), ("open", "")],
        [("inspect", "source/file"), ("inspect", "source"), ("inspect", ""), ("open", "")],
    ],
)
def test_no_inspection_opens_the_way_to_the_folder_above_a_place(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    """A single file is read in its folder; nothing else is read in the folder above."""
    place = SourcePlace(tmp_path)
    (tmp_path / "source/out_to_file").symlink_to("folder/file")
    fresh = Agent(TOKEN, "source")
    fresh._context.send = place.agent._context.send  # type: ignore[method-assign]
    place.agent._context.tree.close()
    place.agent, place._seal = fresh, Seal(TOKEN)

    for op, path in steps:
        place.take(op, root=str(tmp_path), path=path)

    assert place.errors()[-1] == "AGENT_FAILED"
    assert fresh._context.real == ""
    place.close()
