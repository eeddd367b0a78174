"""What a stream may cost a target's agent, and that it is never at a loss for words."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.agent import wire
from tests.rig import hostile
from tests.rig.hostile import Place, entry
from tests.rig.needs import needs_proc
from tests.rig.project import PROJECT

ONE = entry("one", b"content")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, xattrs=True)
    yield place
    place.close()


#: Streams that must cost no more than the limits say, as Python that makes them.
GREEDY = {
    "objects in a head": (
        'hostile.frame(b"H", b\'{"kind":"file","parcel":1,"x":[\' + b"[]," * 2_700_000 + b"[]]}")',
        "a head may be 64 MiB of JSON, which Python takes 1.7 GiB for",
    ),
    "a symlink's text": (
        'hostile.head([entry("a", kind="l", size=1 << 40)]) + hostile.data(bytes(1 << 18)) * 180',
        "the content of what is no file is gathered in memory, whatever its size",
    ),
    "attributes that are not taken": (
        'hostile.plain((entry("/".join(["n" * 250] * 250), b"", meta=META), b""))',
        "every refused attribute is kept with the path of its file",
    ),
}
_GREEDY = """
import struct, tempfile
from pathlib import Path
from tests.rig import hostile
from tests.rig.hostile import peak_kib
from tests.rig.hostile import entry
NAMES = [b"x.%04d" % number for number in range(4096)]
META = struct.pack(">H", 4096) + b"".join(
    struct.pack(">H", 6) + name + struct.pack(">I", 0) for name in NAMES)
with tempfile.TemporaryDirectory() as folder:
    place = hostile.Place(Path(folder), xattrs=True)
    stream = STREAM
    before = peak_kib()
    place.take(stream)
    print(peak_kib() - before)
"""


@needs_proc
@pytest.mark.parametrize("sort", GREEDY)
def test_a_hostile_stream_costs_the_agent_no_more_than_30_mib(sort: str) -> None:
    code = _GREEDY.replace("STREAM", GREEDY[sort][0])

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, timeout=60, check=True
    )

    assert int(ended.stdout) < 30 << 10  # KiB; each of the streams is some MiB itself.


def test_a_start_beyond_the_staged_bytes_is_not_hashed(place: Place) -> None:
    (place.staged / "long").write_bytes(b"x")
    size = 3 << 29
    began = time.monotonic()

    place.take(hostile.head([entry("long", size=size)], starts={"0": size - 1}))

    assert time.monotonic() - began < 1.0


def test_a_path_of_many_thousand_folders_is_refused(place: Place) -> None:
    place.take(hostile.plain((entry("/".join("a" * 33_000), b""), b"")))

    assert place.errors() == ["NAME_TOO_LONG"]


# -- last words ------------------------------------------------------------

#: Streams at which the agent must not stumble: it refuses them in a sentence.
STUMBLING: dict[str, bytes] = {
    "a head that is no JSON": hostile.frame(wire.HEAD, b"{"),
    "a head that is no text": hostile.frame(wire.HEAD, b"\xff\xfe"),
    "a head of brackets": hostile.frame(wire.HEAD, b"[" * 100_000),
    "a head without a kind": wire.encode(wire.HEAD, {"parcel": 1}),
    "a head without slices": hostile.head([ONE], "range"),
    "slices of no file": hostile.head([], "range", slices=[[0, 1]]),
    "slices that are none": hostile.head([ONE], "range", slices=[["0", None]]),
    "starts that are none": hostile.head([ONE], starts=[1]),
    "a start that is no number": hostile.head([ONE], starts={"0": "1"}),
    "an archive without a name": hostile.head([ONE], "archive"),
    "an archive's name that is no text": hostile.head([ONE], "archive", name=5),
    "an archive's name with half a letter": hostile.head([ONE], "archive", name="\ud800"),
    "a mark without a place": hostile.head([ONE]) + wire.encode(wire.MARK, {}),
    "marks without payload": hostile.head([ONE]) + wire.encode(wire.MARK, {"at": 0}) * 3,
    "payload of no bytes": hostile.head([ONE]) + hostile.frame(wire.DATA, b"") * 3,
    "an end that is no JSON": hostile.head([ONE]) + hostile.frame(wire.END_ENTRY, b"?"),
    "a symlink with NUL": hostile.plain((entry("a", b"a\0b", "l"), b"a\0b")),
}


@pytest.mark.parametrize("sort", STUMBLING)
def test_a_senseless_frame_is_refused_without_crashing_the_agent(place: Place, sort: str) -> None:
    assert place.take(STUMBLING[sort]) in ("EndOfStream", "AgentError")

    place.untouched()
