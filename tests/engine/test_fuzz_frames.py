"""Hostile bytes by the thousand into everything that is parsed, at the agents' and at our end."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from engine.agent import wire, xattrs
from engine.agent.target.resume import Survey
from engine.agent.tree import Tree
from engine.agent.wire import AgentError, Entry, pack_entries, unpack_entries
from engine.protocol.messages import READERS
from tests.rig import answers, fuzzing, hostile
from tests.rig.frames import read_frame
from tests.rig.fuzzing import examples, spoilt
from tests.rig.hostile import facts

whole_entries = st.builds(
    Entry,
    fuzzing.names,
    fuzzing.kinds,
    st.integers(0, (1 << 63) - 1),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 64) - 1),
    fuzzing.names | st.just(""),
    st.binary(max_size=20),
)
lists = st.lists(whole_entries, max_size=8).map(pack_entries)


@examples(300)
@given(st.lists(whole_entries, max_size=8))
def test_any_generated_entry_list_survives_packing_and_unpacking(entries: list[Entry]) -> None:
    assert unpack_entries(pack_entries(entries)) == entries


@examples(1000)
@given(st.binary(max_size=200) | spoilt(lists))
def test_random_bytes_are_refused_or_unpack_to_valid_entries(data: bytes) -> None:
    try:
        entries = unpack_entries(data)
    except AgentError:
        return
    assert unpack_entries(pack_entries(entries)) == entries
    for entry in entries:
        assert entry.kind in "fdlh"
        assert entry.size >= 0
        assert 0 <= entry.mode <= 0o7777
        assert "\0" not in entry.path + entry.link


@examples(200)
@given(
    st.lists(st.integers(0, 0xFFFFFFFF), min_size=4, max_size=4),
    st.binary(max_size=40),
)
def test_an_entry_list_whose_counts_exceed_its_data_is_refused(
    numbers: list[int], rest: bytes
) -> None:
    """Counts of four thousand million cost nothing: what comes decides."""
    data = struct.pack("<4I", *numbers) + rest

    with pytest.raises(AgentError):
        unpack_entries(data if numbers[0] else data + b"x")


messages = st.dictionaries(st.text(max_size=4), fuzzing.odd, max_size=3).map(wire.message)


@examples(300)
@given(st.lists(st.tuples(st.sampled_from("JHDMEP"), messages), max_size=4), st.data())
def test_a_damaged_stream_of_frames_is_read_to_its_end_or_refused(
    frames: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(hostile.frame(kind.encode(), body) for kind, body in frames)
    if data.draw(st.booleans()):
        stream = data.draw(spoilt(st.just(stream)))
    source = io.BytesIO(stream)

    def read_all() -> None:
        while True:
            kind, body = read_frame(source)
            assert len(body) <= len(stream)
            if kind != wire.DATA:
                wire.decode(body)

    event(hostile.ending(read_all))


@examples(300)
@given(st.data())
def test_a_sealed_command_with_any_changed_byte_is_refused(data: st.DataObject) -> None:
    body = data.draw(messages)
    sealed = wire.Seal(hostile.TOKEN).frame({"op": "clean"}, body)[wire.HEADER.size :]
    changed = data.draw(spoilt(st.just(sealed)))

    if changed == sealed:
        assert wire.Seal(hostile.TOKEN).open(changed)["op"] == "clean"
    else:
        with pytest.raises(AgentError, match="did not send"):
            wire.Seal(hostile.TOKEN).open(changed)


# -- attributes --------------------------------------------------------------

_ATTRIBUTES = (
    b"\0\2\0\6user.a\0\0\0\1v\0\6user.b\0\0\0\0",
    b"\0\1\0\x17system.posix_acl_access\0\0\0\4\2\0\0\0",
    b"\0\1\0\x13security.capability\0\0\0\1v",
    b"\0\1\0\x0ftrusted.overlay\0\0\0\1v",
)


@examples(600)
@given(st.binary(max_size=60) | spoilt(st.sampled_from(_ATTRIBUTES)))
def test_random_attribute_blobs_are_refused_or_name_only_harmless_attributes(blob: bytes) -> None:
    try:
        found = xattrs.decode(blob)
    except AgentError:
        return
    for name in found:
        assert not name.startswith((b"security.", b"trusted.", b"\0"))
        assert name in xattrs._ACLS or not name.startswith(b"system.")


# -- journals ----------------------------------------------------------------


def record(body: bytes, crc: int | None = None) -> bytes:
    """A record of a journal; its CRC-32 is right unless one is given."""
    return struct.pack(">II", len(body), zlib.crc32(body) if crc is None else crc) + body


paths = fuzzing.names
keys = st.builds(lambda path, size: [path, size, 5, 7], paths, st.integers(0, 100))
bodies = (
    st.just({"start": 1, "machine": "this machine"})
    | st.builds(lambda key, upto: {"file": key, "upto": upto}, keys, st.integers(-1, 200))
    | st.builds(
        lambda key, at: {"file": key, "slice": at},
        keys,
        st.lists(st.integers(-1, 100), min_size=2, max_size=2),
    )
    | st.builds(lambda gone: {"void": gone}, st.lists(paths, max_size=3))
    | st.builds(lambda at: {"durable": at}, st.integers(0, 400))
)
strange = st.dictionaries(
    st.sampled_from(("start", "machine", "file", "upto", "slice", "void", "parcel", "list")),
    fuzzing.odd,
)


@st.composite
def journals(draw: st.DrawFn) -> bytes:
    """A journal of records, some of them of no sense."""
    records = []
    for _ in range(draw(st.integers(0, 6))):
        how = draw(st.sampled_from(("body", "body", "list", "list", "strange", "garbage")))
        if how == "list":
            blob = draw(lists)
            digests = draw(st.binary(max_size=80))
            records.append(record(wire.message({"parcel": 1, "list": len(blob)}, blob + digests)))
        elif how == "garbage":
            records.append(record(draw(st.binary(max_size=30)), draw(st.just(0) | st.none())))
        else:
            body = draw(strange if how == "strange" else bodies)
            records.append(record(wire.message(body, draw(st.binary(max_size=32)))))
    return b"".join(records)


@contextmanager
def left_behind(journal: bytes) -> Iterator[tuple[Path, Survey]]:
    """A survey of a staging folder with that journal, and traps in its tree."""
    with tempfile.TemporaryDirectory(prefix="ketter-fuzz-") as name:
        root = Path(name)
        (root / "canary" / "folder").mkdir(parents=True)
        (root / "canary" / "file").write_text("canary")
        fd, opened = hostile.garbage_journal(root / "staging", journal)
        staged = root / "staging" / "a1"
        (staged / "folder").mkdir(parents=True)
        for path in ("a", "folder/x"):
            (staged / path).write_bytes(b"content")
        for path in ("out", "folder/out"):
            (staged / path).symlink_to(root / "canary")
        tree = Tree(os.open(staged, os.O_RDONLY))
        try:
            yield root, Survey(tree, opened)
        finally:
            tree.close()
            opened.close()
            os.close(fd)


@examples(400)
@given(journals() | spoilt(journals()) | st.binary(max_size=100))
def test_a_survey_of_any_journal_clears_nothing_outside_the_staged_tree(journal: bytes) -> None:
    with left_behind(journal) as (root, survey):
        before = facts(root / "canary")
        told: list[dict[str, Any]] = []

        def take_up() -> None:
            survey.take_up(lambda body, blob: told.append(body))

        event(hostile.ending(take_up, hostile.OF_A_JOURNAL))

        assert facts(root / "canary") == before
        assert sorted(os.listdir(root)) == ["canary", "staging"]
        assert sorted(os.listdir(root / "staging")) == ["a1", "journal"]


# -- what agents say ---------------------------------------------------------

said = st.dictionaries(st.sampled_from((*READERS, "lost", "list", "op")), fuzzing.odd, max_size=3)


@st.composite
def speeches(draw: st.DrawFn) -> bytes:
    """What an agent says: a greeting, and answers of any form."""
    speech = draw(st.binary(max_size=20)) + wire.MAGIC
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from((wire.JSON, wire.JSON, wire.DATA)))
        speech += wire.encode(kind, draw(said), draw(st.binary(max_size=20)))
    return speech


@examples(150)
@given(speeches() | spoilt(speeches()) | st.binary(max_size=100))
def test_listening_to_an_agent_ends_whatever_bytes_it_sends(speech: bytes) -> None:
    event(answers.heard(speech))


@examples(60)
@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(list(b"JHDMEPx\0")))
def test_a_frame_header_announcing_any_size_yields_no_message(size: int, kind: int) -> None:
    """A frame above the limits ends the link before anything of it is read."""
    speech = wire.MAGIC + wire.HEADER.pack(bytes([kind]), size)

    assert answers.listen(speech) == []
