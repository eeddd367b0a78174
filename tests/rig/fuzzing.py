"""What hypothesis draws hostile streams from, and how many of them.

The suite draws the same ones each time; KETTER_FUZZ=20 draws others, and twenty
times as many.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from engine.agent import wire
from engine.agent.wire import Entry, pack_entries
from tests.rig import hostile

_TIMES = int(os.environ.get("KETTER_FUZZ", "0"))
settings.register_profile(
    "suite",
    deadline=None,  # The machine may be busy; each test has a bound of its own.
    database=None,
    derandomize=not _TIMES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
#: Seconds for one stream, far more than any needs: an endless loop is what it tells from.
PATIENCE = 10.0


def examples(number: int) -> Callable[[Any], Any]:
    """So many examples in the suite."""
    return settings(settings.get_profile("suite"), max_examples=number * max(1, _TIMES))


#: Names that are fine, names behind the traps of `hostile.Place`, and names that no list may hold.
FINE = ("a", "b", "A", "folder", "folder/x", "folder/y/z", "file", "ä", "a\u0308", "\udcff")
TRAPPED = ("out", "out/file", "out/new", "out/folder/new", "out_file", "folder/out")
IMPOSSIBLE = (
    "..", ".", "", "../x", "/x", "a//b", "a/../../x", "./a", "folder/..", "a/", "//", "out/../x",
    "n" * 300, "../../file",
)  # fmt: skip

fine_names = st.sampled_from(FINE + TRAPPED)
#: Mostly possible: else no stream would come far.
names = fine_names | fine_names | fine_names | st.sampled_from(FINE + TRAPPED + IMPOSSIBLE)
contents = st.binary(max_size=40) | st.sampled_from((bytes(70_000), b"x" * 5000, b"a\0b"))
metas = st.sampled_from((b"", b"", b"\0\1\0\6user.a\0\0\0\1v", b"\0\1\0\6trusted")) | st.binary(
    max_size=30
)
kinds = st.sampled_from(("f", "f", "f", "d", "l", "h"))
sizes = st.integers(0, 60) | st.sampled_from((5000, 70_000, 1 << 20))
times = st.sampled_from((0, 5, -1, (1 << 63) - 1, -(1 << 63)))
modes = st.sampled_from((0o644, 0o755, 0, 0o7777))
#: Anything that JSON can say where something else is due.
odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(-3, 3), max_size=3)
    | st.dictionaries(st.sampled_from("01a"), st.integers(-3, 3), max_size=2)
)


#: A further name of a file that the target has; see `hostile.Place`.
there = st.builds(
    lambda path, of: (hostile.entry(path, f"target/{of}".encode(), "h", link=of), b""),
    fine_names,
    st.sampled_from(("file", "folder/file")),
)


@st.composite
def filled(draw: st.DrawFn) -> tuple[Entry, bytes]:
    """An entry and its content, whose size it mostly tells."""
    content = draw(contents)
    entry = Entry(
        draw(names),
        draw(kinds),
        draw(sizes) if draw(st.integers(0, 5)) == 0 else len(content),
        draw(times),
        draw(modes),
        7,
        draw(names | st.just("")),
        draw(metas),
    )
    return entry, content


def _slices(size: int) -> st.SearchStrategy[list[list[int]]]:
    near = st.integers(0, size) | st.integers(-2, size + 2)
    return st.lists(st.tuples(near, near).map(list), max_size=3)


@st.composite
def parcels(draw: st.DrawFn) -> list[bytes]:
    """The frames of one parcel, more or less as they should be."""
    files = draw(st.lists(filled() | filled() | there, min_size=1, max_size=4))
    entries = [entry for entry, _ in files]
    kind = draw(st.sampled_from(("file", "file", "zip", "zip", "range", "archive")))
    digests = [hostile.sha(content) for _, content in files]
    more: dict[str, Any] = {}
    frames: list[bytes] = []
    if kind == "file":
        if draw(st.booleans()):
            more["starts"] = {"0": draw(st.integers(-2, 50))}
        for _, content in files:
            cut = draw(st.integers(0, len(content)))
            frames.append(hostile.data(content[:cut]))
            if draw(st.booleans()):
                frames.append(hostile.mark(cut, hostile.sha(content[:cut])))
            frames += [hostile.data(content[cut:]), hostile.end_entry()]
    elif kind == "range":
        content = files[0][1]
        slices = more["slices"] = draw(_slices(len(content)))
        digests = []
        for at, size in slices:
            part = content[max(0, at) :][: max(0, size)]
            digests.append(hostile.sha(part))
            frames += [hostile.data(part), hostile.end_entry(digests[-1])]
    else:
        if kind == "archive":
            more["name"] = draw(names)
        frames.append(hostile.data(draw(archives(files))))
    return [hostile.head(entries, kind, **more), *frames, hostile.end(*digests)]


@st.composite
def archives(draw: st.DrawFn, files: list[tuple[Entry, bytes]]) -> bytes:
    """An archive of entries, some of its bytes not what they should be."""
    fitting = [(entry._replace(size=len(content)), content) for entry, content in files]
    payload = hostile.archived(*fitting, streamed=draw(st.booleans()))
    return draw(spoilt(st.just(payload))) if draw(st.booleans()) else payload


@st.composite
def spoilt(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of which some were changed, left out, repeated or put in."""
    found = bytearray(draw(data))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(found)))
        size = draw(st.sampled_from((1, 2, 4, 8, 30)))
        how = draw(st.sampled_from(("set", "put in", "leave out", "repeat", "cut")))
        if how == "set":
            found[at : at + size] = draw(st.binary(min_size=size, max_size=size))
        elif how == "put in":
            found[at:at] = draw(st.binary(max_size=size))
        elif how == "leave out":
            del found[at : at + size]
        elif how == "repeat":
            found[at:at] = found[at : at + size]
        else:
            del found[at:]
    return bytes(found)


def _odd_head(kind: str, entries: list[Entry], more: dict[str, Any]) -> bytes:
    body = {"kind": kind, "parcel": 1, **more}
    return wire.encode(wire.HEAD, body, pack_entries(entries))


odd_heads = st.builds(
    _odd_head,
    st.sampled_from(("file", "zip", "range", "archive", "other")),
    st.lists(filled().map(lambda pair: pair[0]), max_size=3),
    st.dictionaries(st.sampled_from(("kind", "parcel", "slices", "starts", "name")), odd),
)
#: Frames that stand anywhere.
strays = (
    odd_heads
    | st.builds(hostile.mark, odd, st.binary(max_size=40))
    | st.builds(hostile.data, st.binary(max_size=40))
    | st.builds(hostile.end_entry, st.binary(max_size=40), error=odd)
    | st.builds(hostile.end, st.binary(max_size=70))
    | st.builds(hostile.frame, st.sampled_from(list(b"JHDMEPx")).map(lambda b: bytes([b])),
                st.binary(max_size=60))
    | st.binary(max_size=20)
)  # fmt: skip

#: Commands of the worker's: op and the names of its list. What leads out is in `test_hostile`.
commands = st.tuples(
    st.sampled_from(("discard", "check")), st.lists(fine_names, max_size=3)
) | st.tuples(
    st.sampled_from(("complete", "close_archive")), st.lists(fine_names, min_size=1, max_size=1)
)


@st.composite
def streams(draw: st.DrawFn) -> list[Any]:
    """A stream in pieces: frames, and commands that the worker has sealed."""
    pieces: list[Any] = []
    for _ in range(draw(st.integers(1, 4))):
        frames: list[Any] = draw(parcels())
        for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
            at = draw(st.integers(0, len(frames)))
            how = draw(st.sampled_from(("stray", "drop", "twice", "command")))
            if how == "stray":
                frames.insert(at, draw(strays))
            elif how == "drop":
                del frames[at : at + 1]
            elif how == "twice":
                frames[at:at] = frames[at : at + 1]
            else:
                frames.insert(at, draw(commands))
        pieces += frames
        if draw(st.booleans()):
            pieces.append(draw(commands))
    return pieces
