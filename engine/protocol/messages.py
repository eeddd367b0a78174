"""The messages that an agent sends, one class each; docs/protocol.md lists them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from engine import errors
from engine.agent.typed import NamedTuple
from engine.agent.wire import DIGEST, AgentError, decode
from engine.protocol.commands import COMMANDS
from engine.protocol.fields import (
    COUNT,
    FAILURE,
    FLAG,
    MOST,
    NAME,
    PROBLEM,
    SHOWN_NAME,
    EntryProblem,
    Failure,
    Fields,
    Form,
    each,
    whole,
)
from engine.protocol.lists import listed
from engine.protocol.record import Record

#: Bytes of a message's JSON, at most. Lists of entries and digests follow it as bytes.
MAX_JSON = 4 << 20
#: Values of a message's JSON, at most, where an object counts twice: Python takes up to 230 bytes
#: for one, and up to 90 for another value.
MAX_VALUES = 120_000
#: Entries in one report of a scan's failures, at most.
MAX_FAILURES = 2500


class Hello(Record):
    """The first message: the agent's process id, Python version and `sys.platform`."""

    pid: int
    python: str
    system: str


class Beat(Record):
    """A sign of life.

    `sibling_lives`: the agent still runs whose connection this one shares. `work` grows while the
    agent works (µs of processor time). `waits`: it waits for the agent at the other end.
    """

    sibling_lives: bool
    work: int
    waits: bool


class ScannedEntries(Record):
    """Entries that the scan found at the source, as a packed list."""

    entries: bytes


class ScanFailures(Record):
    """Entries that the scan could not read at the source."""

    problems: tuple[EntryProblem, ...]


class ParcelProgress(Record):
    """How many bytes of a parcel the agent has received or read so far."""

    bytes: int
    parcel: int


class DeliveredArchive(Record):
    """An earlier attempt delivered the archive `name`; its entries follow in `StagedEntries`."""

    name: str


class StagedEntries(Record):
    """Entries that an earlier attempt delivered and proved: a packed list, and their digests."""

    entries: bytes
    digests: bytes


class FilePart(NamedTuple):
    """The part of an incomplete file that an earlier attempt delivered and proved.

    It is all bytes before `upto`, or some `slices` (offset and size in bytes, in ascending order;
    those that follow one another are one).
    """

    path: str
    size: int
    mtime_ns: int
    ino: int
    upto: int
    slices: tuple[tuple[int, int], ...]


class StagedParts(Record):
    """Incomplete files of an earlier attempt; many of them come in several such messages."""

    parts: tuple[FilePart, ...]


class Failed(Record):
    """A command failed, or the agent must end."""

    failure: Failure


class Done(Record):
    """A command is done; `COMMANDS[op]` reads its `reply`."""

    op: str
    reply: Any


class Lost(Record):
    """An optional agent has ended; the worker itself makes this message.

    `reported`: the agent reported the error itself.
    """

    error: errors.EngineError
    reported: bool


Message = (
    Hello
    | Beat
    | ScannedEntries
    | ScanFailures
    | ParcelProgress
    | DeliveredArchive
    | StagedEntries
    | StagedParts
    | Failed
    | Done
    | Lost
)


def read_message(body: bytes) -> Message:
    """Return the message in a frame's body; raises AgentError (AGENT_FAILED) if it is malformed."""
    end = body.find(b"\0")
    _refuse_many_values(body if end < 0 else body[:end])
    values = decode(body, MAX_JSON)
    blob = values.pop("blob")
    for key, read in READERS.items():
        if key in values:
            return read(Fields(values, blob, f"the message {key}"))
    raise AgentError("AGENT_FAILED", "protocol error: unknown message")


def _refuse_many_values(text: bytes) -> None:
    """Raises AgentError if JSON would take much memory: too long, not ASCII, or many values."""
    if len(text) > MAX_JSON or not text.isascii():
        raise AgentError(
            "AGENT_FAILED", f"protocol error: a message is not ASCII, or has over {MAX_JSON} bytes"
        )
    if _marks_of(text) > MAX_VALUES and _marks_of(text) - _marks_in_strings(text) > MAX_VALUES:
        raise AgentError("AGENT_FAILED", f"protocol error: more than {MAX_VALUES:,} values came")


def _marks_of(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + 2 * text.count(b"{")


def _marks_in_strings(text: bytes) -> int:
    import re  # Few messages need it: only those with very many values, or commas in names.

    strings = re.finditer(rb'"(?:[^"\\]|\\.)*"', text)
    return sum(_marks_of(string.group()) for string in strings)


def _done(fields: Fields) -> Done:
    op = fields.get("op", NAME)
    command = COMMANDS.get(op)
    if command is None:
        raise AgentError("AGENT_FAILED", f"protocol error: reply to the unknown command {op!r:.50}")
    values = fields.get("done", Form("an object", lambda value: value))
    return Done(op, command.read(Fields(values, fields.blob, f"the reply to {op}")))


def _staged_entries(fields: Fields) -> StagedEntries:
    fields.get("held", COUNT)
    size = fields.get("list", whole(0, len(fields.blob)))
    entries, digests = fields.blob[:size], fields.blob[size:]
    if len(digests) % DIGEST:
        raise AgentError("AGENT_FAILED", "protocol error: incomplete digest")
    return StagedEntries(listed(entries), digests)


def _part(value: Any) -> FilePart:
    """Read a part as `agent.target.resume.Survey` reports it."""
    fields = Fields(value, b"", "a part of a file")
    path, size, mtime_ns, ino = fields.get("file", Form("path, size, time and inode", _four))
    inside = Form("offset and size inside the file", lambda item: _slice(item, size))
    slices = fields.get("slices", each(inside))
    if any(at < before + length for (before, length), (at, _) in pairwise(slices)):
        raise AgentError(
            "AGENT_FAILED", "protocol error: the slices of a file overlap, or are in disorder"
        )
    return FilePart(path, size, mtime_ns, ino, fields.get("upto", whole(0, size)), slices)


def _four(value: Any) -> tuple[str, int, int, int]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError
    time = whole(-MOST - 1, MOST)
    inode = whole(0, (1 << 64) - 1)
    return NAME.read(value[0]), COUNT.read(value[1]), time.read(value[2]), inode.read(value[3])


def _slice(value: Any, file_size: int) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError
    offset = whole(0, file_size).read(value[0])
    return offset, whole(0, file_size - offset).read(value[1])


#: Reader of a message, by the key that identifies the message; "done" has "op" beside it.
READERS: dict[str, Callable[[Fields], Message]] = {
    "done": _done,
    "progress": lambda fields: ParcelProgress(
        fields.get("progress", COUNT), fields.get("parcel", COUNT)
    ),
    "beat": lambda fields: Beat(
        fields.get("beat", FLAG), fields.get("work", COUNT), fields.get("waits", FLAG)
    ),
    "entries": lambda fields: ScannedEntries(listed(fields.blob)),
    "failures": lambda fields: ScanFailures(fields.get("failures", each(PROBLEM, MAX_FAILURES))),
    "error": lambda fields: Failed(fields.get("error", FAILURE)),
    "hello": lambda fields: Hello(
        fields.get("hello", COUNT),
        fields.get("python", SHOWN_NAME),
        fields.get("system", SHOWN_NAME),
    ),
    "delivered": lambda fields: DeliveredArchive(fields.get("delivered", NAME)),
    "held": _staged_entries,
    "parts": lambda fields: StagedParts(fields.get("parts", each(Form("parts", _part)))),
}
