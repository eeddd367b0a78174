"""Seeds for the fuzzers: what honest senders, agents and journals make, of every kind.

python tests/fuzz/corpus.py FOLDER    writes FOLDER/receiver/* and FOLDER/frames/*
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT))

from engine.agent import wire  # noqa: E402 - found by the line above
from tests.rig import hostile  # noqa: E402
from tests.rig.frames import read_frame  # noqa: E402

#: Between two frames of a seed whose headers the fuzzer makes: see `framed`.
GAP = b"\xfe\xedGAP"
#: The first byte of an input for the receiver: whether the rest is framed, and is published.
IS_FRAMED, PUBLISHED = 1, 2
#: And for the parsers: which of them.
LISTS, MESSAGES, FRAMES, XATTRS, JOURNALS, RECORDS, LINKS = PARSERS = range(7)

_KINDS = (wire.JSON, wire.HEAD, wire.DATA, wire.MARK, wire.END_ENTRY, wire.END_PARCEL)


def framed(data: bytes) -> bytes:
    """A stream from pieces: a byte for the kind, then the body; the lengths are right.

    So that a mutation of a body does not put everything after it out of step.
    """
    return b"".join(
        hostile.frame(_KINDS[piece[0] % len(_KINDS)], piece[1:])
        for piece in data.split(GAP)
        if piece
    )


def pieces_of(stream: bytes) -> bytes:
    """The pieces of a stream, as `framed` takes them."""
    source, pieces = io.BytesIO(stream), []
    while source.tell() < len(stream):
        kind, body = read_frame(source)
        pieces.append(bytes([_KINDS.index(kind)]) + body)
    return GAP.join(pieces)


def journal_of(messages: bytes) -> bytes:
    """A journal from the messages in its records; their lengths and CRCs are right."""
    return b"".join(
        struct.pack(">II", len(message), zlib.crc32(message)) + message
        for message in messages.split(GAP)
    )


def receiver_seeds() -> Iterator[tuple[str, bytes]]:
    """Streams into a target's agent."""
    for name, stream in hostile.seeds():
        yield f"raw-{name}", bytes([0]) + stream
        yield f"framed-{name}", bytes([IS_FRAMED]) + pieces_of(stream)
        yield f"published-{name}", bytes([IS_FRAMED | PUBLISHED]) + pieces_of(stream)


def frame_seeds() -> Iterator[tuple[str, bytes]]:
    """Lists, messages, frames, attributes, journals, and what an agent says."""
    entries = [
        hostile.entry("a", b"x", meta=b"\0\1\0\6user.a\0\0\0\1v"),
        hostile.entry("d", b"", "d"),
        hostile.entry("d/l", b"a", "l", link="a"),
        hostile.entry("t", b"", "h", link="a"),
    ]
    packed = wire.pack_entries(entries)
    yield "list", bytes([LISTS]) + packed
    yield "message", bytes([MESSAGES]) + wire.message({"at": 5, "x": [1.5, None]}, b"blob")
    yield "xattrs", bytes([XATTRS]) + b"\0\2\0\6user.a\0\0\0\1v\0\6user.b\0\0\0\0"
    messages = GAP.join(
        [
            wire.message({"start": 1, "machine": "this machine"}),
            wire.message({"parcel": 1, "list": len(packed)}, packed + bytes(range(128))),
            wire.message({"file": ["long", 10, 5, 7], "upto": 4}, bytes(32)),
            wire.message({"file": ["long", 10, 5, 7], "slice": [4, 2]}, bytes(32)),
            wire.message({"durable": 9}),
            wire.message({"void": ["a"]}),
        ]
    )
    yield "journal", bytes([JOURNALS]) + journal_of(messages)
    yield "records", bytes([RECORDS]) + messages
    answers = [
        wire.encode(wire.JSON, {"hello": 1, "python": "3.11.7", "system": "linux"}),
        wire.encode(wire.JSON, {"entries": 4}, packed),
        wire.encode(wire.JSON, {"failures": [["p", "VANISHED", "p: gone"]]}),
        wire.encode(wire.JSON, {"done": {"got": 1, "list": "00", "errors": {}}}, bytes(64)),
        wire.encode(wire.JSON, {"error": ["NO_SPACE", "full"]}),
    ]
    yield "frames", bytes([FRAMES]) + b"".join(answers)
    yield "link", bytes([LINKS]) + b"Welcome!\n" + wire.MAGIC + b"".join(answers)


def write(folder: Path) -> None:
    """All seeds as files."""
    for name, seeds in (("receiver", receiver_seeds()), ("frames", frame_seeds())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for seed, data in seeds:
            (folder / name / seed).write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="ketter-corpus-")))
