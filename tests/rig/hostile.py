"""A target's agent in this process, and the frames of a sender that means no good.

`Place` is a folder with an agent's target in it; beside it lies what nobody may
touch, and in both trees symlinks that lead there. `take` hands it a stream as
`agent.main` would and says how that ended; what it raises is a bug of the agent's.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from traceback import extract_tb
from typing import Any
from unittest import mock

from engine.agent import wire
from engine.agent.context import Context
from engine.agent.main import Agent
from engine.agent.reader import FrameReader
from engine.agent.source.zip_writer import ZipWriter
from engine.agent.target.commands import Target
from engine.agent.target.journal import Journal
from engine.agent.target.publish import commands as publishing
from engine.agent.target.publish.publisher import count_files
from engine.agent.target.resume import Survey
from engine.agent.target.staged_files import WriteOptions
from engine.agent.target.staging.folder import Staging
from engine.agent.wire import AgentError, EndOfStream, Entry, Seal, explain, pack_entries

TOKEN = "00" * 16
NAME = ".ketter-t.part"
EMPTY = hashlib.sha256().digest()

#: As much of a file is compared; its size is, too.
READ_BYTES = 64 << 20

#: What ends a stream from elsewhere in an orderly way; anything else is a bug.
ORDERLY = (AgentError, EndOfStream)
#: What taking up a journal may end with whose records are whole and make no sense: nobody but this
#: user can write one, and `agent.main` has last words for it.
OF_A_JOURNAL = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _ignore(_: object) -> None:
    """Do nothing."""


def entry(path: str, data: bytes = b"", kind: str = "f", **more: Any) -> Entry:
    """An entry of a list, its size that of the data."""
    return Entry(path, kind, len(data), 5, 0o644, 7)._replace(**more)


def frame(kind: bytes, body: bytes) -> bytes:
    """Any body as a frame."""
    return wire.HEADER.pack(kind, len(body)) + body


def data(*pieces: bytes) -> bytes:
    """Payload, a frame for each piece that has bytes."""
    return b"".join(frame(wire.DATA, piece) for piece in pieces if piece)


def head(entries: Iterable[Entry] | bytes, kind: str = "file", **more: Any) -> bytes:
    """The head of a parcel."""
    blob = entries if isinstance(entries, bytes) else pack_entries(entries)
    return wire.encode(wire.HEAD, {"kind": kind, "parcel": 1, **more}, blob)


def mark(at: Any, digest: bytes) -> bytes:
    """A mark inside a file."""
    return wire.encode(wire.MARK, {"at": at}, digest)


def end_entry(digest: bytes = b"", **body: Any) -> bytes:
    """The end of one entry; with `error`, the sender gave up on it."""
    return wire.encode(wire.END_ENTRY, body, digest)


def end(*digests: bytes) -> bytes:
    """The end of a parcel."""
    return wire.encode(wire.END_PARCEL, {"errors": {}}, b"".join(digests))


def sha(content: bytes) -> bytes:
    """The digest of an entry's content."""
    return hashlib.sha256(content).digest()


def plain(*files: tuple[Entry, bytes], **more: Any) -> bytes:
    """A parcel of files as they are."""
    return b"".join(
        [
            head([one for one, _ in files], "file", **more),
            *(data(content) + end_entry() for _, content in files),
            end(*(sha(content) for _, content in files)),
        ]
    )


def archived(*files: tuple[Entry, bytes], streamed: bool = False) -> bytes:
    """The archive of a parcel, without frames."""
    pieces: list[bytes] = []
    archive = ZipWriter(lambda piece: pieces.append(bytes(piece)))
    for one, content in files:
        if streamed:
            archive.start(one)
            archive.content(content)
            archive.finish(zlib.crc32(content))
        else:
            archive.add(one, zlib.crc32(content), content)
    archive.close()
    return b"".join(pieces)


def zipped(*files: tuple[Entry, bytes], streamed: bool = False) -> bytes:
    """A parcel that is an archive."""
    digests = [sha(content) for _, content in files]
    payload = archived(*files, streamed=streamed)
    return head([one for one, _ in files], "zip") + data(payload) + end(*digests)


def sliced(one: Entry, content: bytes, *slices: tuple[int, int]) -> bytes:
    """A parcel of slices of one file."""
    parts = [content[at : at + size] for at, size in slices]
    return b"".join(
        [
            head([one], "range", slices=[list(place) for place in slices]),
            *(data(part) + end_entry(sha(part)) for part in parts),
            end(*map(sha, parts)),
        ]
    )


def whole_archive(payload: bytes, name: str, *entries: Entry) -> bytes:
    """A parcel of the one archive that is to be delivered."""
    return head(entries, "archive", name=name) + data(payload) + end(EMPTY * len(entries))


def facts(root: Path, leave_out: str = "") -> dict[str, tuple[Any, ...]]:
    """Everything about a tree that a write, a rename or a removal would change.

    In the canary, also a further name; a target's files may get those in the staging folder.
    """
    found: dict[str, tuple[Any, ...]] = {}
    waiting = [""]
    while waiting:
        above = waiting.pop()
        for item in os.scandir(root / above):
            path = f"{above}/{item.name}" if above else item.name
            if path == leave_out:
                continue
            info = item.stat(follow_symlinks=False)
            content: bytes | str = ""
            if item.is_symlink():
                content = os.readlink(item.path)
            elif item.is_dir():
                waiting.append(path)
            elif item.is_file():
                # A published slice of a large file is mostly a hole, of any size.
                with open(item.path, "rb") as file:
                    content = file.read(READ_BYTES)
            names = info.st_nlink if path.startswith("canary") and content else 1
            size = info.st_size if item.is_file() else 0
            found[path] = (info.st_mode, info.st_ino, names, info.st_mtime_ns, size, content)
    return found


class _Anything(deque[dict[str, Any]]):
    """Heads of parcels as if the worker had announced whatever comes."""

    class _Head(dict[str, Any]):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    def __bool__(self) -> bool:
        return True

    def popleft(self) -> dict[str, Any]:
        return self._Head()


class Place:
    """A target in a folder of its own, with traps around it."""

    def __init__(self, root: Path, xattrs: bool = False) -> None:
        self.root = root
        for folder in ("canary/folder", "target/folder"):
            (root / folder).mkdir(parents=True)
        for file in ("canary/file", "canary/folder/file", "target/file", "target/folder/file"):
            (root / file).write_text(file)
            os.utime(root / file, ns=(5, 5))  # As entries have it: a further name may fit.
        self._trap(root / "target")
        self.said: list[tuple[dict[str, Any], bytes]] = []
        self.agent = Agent(TOKEN)
        self._context: Context = self.agent._context
        self._context.send = lambda body, blob=b"": self.said.append((body, blob))  # type: ignore[method-assign]
        self._context.open("/", str(root / "target").lstrip("/"), make=False)
        self.target = Target(self._context)
        self.target._options = WriteOptions(xattrs=xattrs)
        self.staging = Staging(self._context.tree.fd, "t", 1, "this machine")
        self.staging.prepare([])
        self.target._staging = self.staging
        self.target._expected = _Anything()
        self.agent._roles["target"] = self.target
        self.staged = root / "target" / NAME / "a1"
        self._trap(self.staged)
        self._seal = Seal(TOKEN)
        self._before = self._outside()

    def _trap(self, folder: Path) -> None:
        (folder / "out").symlink_to("../" * len(folder.relative_to(self.root).parts) + "canary")
        (folder / "out_file").symlink_to(self.root / "canary" / "file")

    def _outside(self) -> dict[str, tuple[Any, ...]]:
        return facts(self.root, leave_out=f"target/{NAME}")

    def untouched(self) -> None:
        """Fail if anything outside the staging folder is not as it was."""
        assert self._outside() == self._before

    def canary_untouched(self) -> None:
        """Fail if anything outside the target folder is not as it was."""
        now = self._outside()
        assert _beside(now) == _beside(self._before)

    def command(self, op: str, blob: bytes = b"", **arguments: Any) -> bytes:
        """A command of the worker's, as it comes through the sender."""
        return self._seal.frame({"op": op, **arguments}, blob)

    def take(self, stream: bytes) -> str:
        """Hand in a stream; returns how it ended, see `ending`."""
        with tempfile.TemporaryFile() as line:
            line.write(stream)
            line.flush()
            os.lseek(line.fileno(), 0, os.SEEK_SET)
            inlet = self.agent._reader = FrameReader(line.fileno())
            return ending(lambda: self._loop(inlet))

    def _loop(self, inlet: FrameReader) -> None:
        """What `Agent.run` does once it has introduced itself."""
        while True:
            kind, body = inlet.frame()
            if kind == wire.HEAD:
                self.target.receive(inlet, wire.decode(body, wire.MAX_HEAD))
                continue
            if kind != wire.JSON:
                raise AgentError("AGENT_FAILED", "payload came where a command was due")
            self.agent._carry_out(self.agent._seal.open(body))

    def take_up(self) -> str:
        """Go on from what is there, as the next attempt would."""
        tree, journal = self.target._staged()
        return ending(
            lambda: Survey(tree, journal).take_up(lambda body, blob: self.said.append((body, blob)))
        )

    def publish(self, policy: str = "overwrite", files: int = -1) -> str:
        """Put what is staged into place, whatever was proven."""
        if files < 0:
            files = count_files(self.target._staged()[0])
        # Nothing here outlives a crash.
        with mock.patch.multiple(publishing, make_durable=_ignore, make_tree_durable=_ignore):
            return ending(lambda: self.target.do_publish(policy, files, pack_entries([])))

    def errors(self) -> list[str]:
        """The codes of the errors that were said."""
        return [body["error"][0] for body, _ in self.said if "error" in body]

    def close(self) -> None:
        """Give back all descriptors."""
        staging = self.staging
        if staging.tree and staging.journal:
            staging.tree.close()
            staging.journal.close()
        if self.target._archive:
            os.close(self.target._archive._fd)
        staging._let_go()
        self._context.tree.close()


def _beside(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {path: fact for path, fact in found.items() if path.startswith("canary")}


def ending(call: Callable[[], object], known: tuple[type[Exception], ...] = ()) -> str:
    """How a call ends that hostile bytes are given to; what is neither ORDERLY nor known is raised.

    A known one is named with its place.
    """
    try:
        call()
    except OSError as error:
        return explain(error, "").code
    except ORDERLY as problem:
        return type(problem).__name__
    except known as bug:
        where = extract_tb(bug.__traceback__)[-1]
        return f"known: {type(bug).__name__} in {Path(where.filename).name}, {where.name}"
    return "done"


def peak_kib() -> int:
    """The most memory this process has had (KiB); Linux only, where rusage tells the parent's."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def garbage_journal(folder: Path, content: bytes) -> tuple[int, Journal]:
    """A journal with any content, in a staging folder."""
    folder.mkdir(parents=True)
    (folder / "journal").write_bytes(content)
    fd = os.open(folder, os.O_RDONLY)
    return fd, Journal(fd, "this machine")


def seeds() -> Iterator[tuple[str, bytes]]:
    """Streams as honest senders make them, of every kind of parcel."""
    content = bytes(range(256)) * 300
    long = entry("folder/long", content)
    small = [(entry(f"folder/{i}", b"x" * i), b"x" * i) for i in range(4)]
    link = (entry("link", b"folder/1", "l"), b"folder/1")
    folder = (entry("folder", b"", "d", mode=0o755), b"")
    twin = (entry("twin", b"", "h", link="folder/1"), b"")
    tagged = (entry("tagged", b"x", meta=b"\0\1\0\6user.a\0\0\0\1v"), b"x")
    yield "plain", plain(folder, *small, link, twin, tagged)
    yield "zip", zipped(folder, *small, link)
    yield "zip-streamed", zipped(*small[1:], (long, content), streamed=True)
    yield "zip64", zipped((entry("wide", size=1 << 33, ino=1), b""))
    yield (
        "marks",
        head([long])
        + data(content[:5000])
        + mark(5000, sha(content[:5000]))
        + data(content[5000:])
        + end_entry()
        + end(sha(content)),
    )
    yield "given-up", head([long]) + data(b"x") + end_entry(error=["VANISHED", "gone"]) + end(EMPTY)
    yield "holes", plain((entry("holes", bytes(200_000)), bytes(200_000)))
    yield "slices", sliced(long, content, (40_000, 36_800), (0, 40_000))
    yield (
        "resumed",
        sliced(long, content, (0, 40_000)) + plain((long, content[40_000:]), starts={"0": 40_000}),
    )
    yield (
        "archive",
        whole_archive(archived(*small), "delivered/all.zip", *(one for one, _ in small)),
    )
    there = entry("x", b"target/file", "h", link="file")
    yield "twin-there", plain((there, b"")) + sliced(entry("x", b"other bytes"), b"?" * 11, (0, 11))
    yield "two", plain(*small) + zipped(link)
