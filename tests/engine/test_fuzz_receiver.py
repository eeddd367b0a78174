"""Hostile streams by the thousand into a target's agent: nothing outside its folder moves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from engine.agent.wire import pack_entries
from tests.rig import fuzzing, hostile
from tests.rig.fuzzing import examples
from tests.rig.hostile import Place

POLICIES = ("fail", "skip", "overwrite", "overwrite-older", "keep-both")


@contextmanager
def a_place(xattrs: bool) -> Iterator[Place]:
    """A place of its own; within the time an example may take."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ketter-fuzz-") as folder:
        place = Place(Path(folder), xattrs)
        try:
            yield place
        finally:
            place.close()
    assert time.monotonic() - began < fuzzing.PATIENCE


def sealed(place: Place, piece: Any) -> bytes:
    """A piece of a stream as bytes."""
    if isinstance(piece, bytes):
        return piece
    op, names = piece
    more = {"complete": {"whole": "a"}, "close_archive": {"path": "a"}}.get(op, {})
    return place.command(op, pack_entries(hostile.entry(name) for name in names), **more)


def endure(place: Place, stream: bytes, policy: str) -> None:
    """Whatever comes, and whatever is made of it afterwards."""
    event(place.take(stream))
    place.untouched()
    place.take_up()
    place.untouched()
    place.publish(policy)
    place.canary_untouched()


@examples(400)
@given(fuzzing.streams(), st.booleans(), st.sampled_from(POLICIES))
def test_no_generated_stream_of_frames_writes_outside_the_staging_folder(
    pieces: list[Any], xattrs: bool, policy: str
) -> None:
    with a_place(xattrs) as place:
        endure(place, b"".join(sealed(place, piece) for piece in pieces), policy)


SEEDS = [stream for _, stream in hostile.seeds()]


@examples(250)
@given(fuzzing.spoilt(st.sampled_from(SEEDS)), st.sampled_from(POLICIES))
def test_no_valid_stream_with_changed_bytes_writes_outside_the_staging_folder(
    stream: bytes, policy: str
) -> None:
    with a_place(xattrs=True) as place:
        endure(place, stream, policy)


@examples(100)
@given(st.sampled_from(SEEDS), st.data())
def test_a_truncated_stream_never_proves_an_incomplete_file(
    stream: bytes, data: st.DataObject
) -> None:
    """Of what a cut stream brought the next attempt believes only what is there, byte for byte."""
    cut = data.draw(st.integers(0, len(stream) - 1))
    with a_place(xattrs=False) as place:
        assert place.take(stream[:cut]) in ("EndOfStream", "done")

        assert place.take_up() == "done"

        for body, blob in place.said:
            if "held" in body:
                for index, entry in enumerate(hostile.wire.unpack_entries(blob[: body["list"]])):
                    digest = blob[body["list"] + 32 * index :][:32]
                    if entry.kind == "f":
                        assert hostile.sha((place.staged / entry.path).read_bytes()) == digest
        place.untouched()
