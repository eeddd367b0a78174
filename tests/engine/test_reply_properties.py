"""Whatever a host puts into a field of a message: a value that fits, or AGENT_FAILED in a line."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from engine.agent.wire import AgentError, message
from engine.protocol.commands import COMMANDS
from engine.protocol.fields import SENTENCE
from engine.protocol.lists import entries_of
from engine.protocol.messages import (
    READERS,
    Failed,
    Message,
    ScannedEntries,
    StagedEntries,
    read_message,
)
from tests.rig.replies import ENTRIES, GOOD, MESSAGES, reply

#: Texts as JSON can hold them: lone surrogates, controls, marks that change the direction.
TEXTS = some.text(some.characters(), max_size=40) | some.sampled_from(
    ["", "\0", "\x1b[2J", "\r\nDONE: all good\n", "\u202e", "\ud800", "../x", "/", "a" * 70_000]
)
NUMBERS = some.integers() | some.sampled_from([-1, 0, 1 << 31, 1 << 63, 1 << 64, 10**400])
#: Around the limits of texts, names, paths and lists.
SIZES = some.sampled_from(
    [0, 1, 255, 256, 500, 501, 2500, 2501, 4096, 4097, 10_001, 32_768, 32_769, 65_537, 100_001]
)
ANYTHING: Any = some.recursive(
    some.none() | some.booleans() | NUMBERS | some.floats() | TEXTS,
    lambda inner: some.lists(inner, max_size=5) | some.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
BLOBS = (
    some.binary(max_size=200)
    | some.sampled_from([bytes(32), bytes(64), b"\xff" * 96, ENTRIES, ENTRIES * 2])
    | SIZES.map(bytes)
)
FIELDS = some.sampled_from([(op, field) for op, (values, _) in GOOD.items() for field in values])
often = settings(max_examples=220, deadline=None, suppress_health_check=list(HealthCheck))


def read(body: bytes) -> Message | None:
    """A message as the worker takes it; None if it is refused in one printable line."""
    refused = None
    try:
        message = read_message(body)
        if isinstance(message, ScannedEntries | StagedEntries):
            entries_of(message.entries)
        return message
    except AgentError as error:
        refused = error
    assert refused.code == "AGENT_FAILED"
    assert str(refused).isprintable(), repr(str(refused))
    assert len(str(refused)) <= SENTENCE
    return None


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside a value."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def changed(values: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a value with another one at a place in it."""
    copy = deepcopy(values)
    here = copy
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = new
    return copy


#: Each value in each message and in each reply, however deep: the kind of message, or the command.
DEEP = [(MESSAGES, key, path) for key, (values, _) in MESSAGES.items() for path in places(values)]
DEEP += [(GOOD, op, path) for op, (values, _) in GOOD.items() for path in places(values)]
DEEP = [(of, name, path) for of, name, path in DEEP if path]
#: A value in place of another one: anything, a long text, or many of what stood there.
NEW = some.one_of(
    ANYTHING.map(lambda value: lambda _: value),
    SIZES.map(lambda size: lambda _: "a" * size),
    SIZES.map(lambda size: lambda old: [old] * size),
    SIZES.map(lambda size: lambda old: {str(number): old for number in range(size)}),
)


def test_there_is_a_good_message_of_every_kind_and_a_good_reply_with_every_field() -> None:
    assert MESSAGES.keys() == READERS.keys()
    for values, blob in MESSAGES.values():
        assert read(message(values, blob))
    bare = {op for op, command in COMMANDS.items() if op not in GOOD}
    for op in bare:
        assert read(reply(op, {}, b""))
    for op, (values, blob) in GOOD.items():
        assert read(reply(op, values, blob))
        for field in values:
            less = {name: value for name, value in values.items() if name != field}
            assert read(reply(op, less, blob)) is None, f"{op}: {field} is not read"


@given(where=some.sampled_from(DEEP), new=NEW, blob=some.none() | BLOBS)
@often
def test_any_value_at_any_depth_of_any_message_is_taken_or_refused_in_a_line(
    where: tuple[Any, str, tuple[Any, ...]], new: Any, blob: bytes | None
) -> None:
    of, name, path = where
    values, good = of[name]
    old = values
    for key in path:
        old = old[key]
    body = changed(values, path, new(old))
    data = good if blob is None else blob
    read(message(body, data) if of is MESSAGES else reply(name, body, data))


@given(where=FIELDS, value=ANYTHING, blob=some.none() | BLOBS)
@often
def test_any_value_of_any_reply_field_is_taken_or_refused_in_a_line(
    where: tuple[str, str], value: Any, blob: bytes | None
) -> None:
    op, field = where
    values, good = GOOD[op]
    read(reply(op, {**values, field: value}, good if blob is None else blob))


@given(op=some.sampled_from(sorted(GOOD)) | TEXTS, values=ANYTHING, blob=BLOBS)
@often
def test_any_reply_of_any_command_is_taken_or_refused_in_a_line(
    op: str, values: Any, blob: bytes
) -> None:
    read(reply(op, values, blob))


@given(
    key=some.sampled_from(sorted(READERS)),
    value=ANYTHING,
    more=some.dictionaries(
        some.sampled_from(["python", "system", "list", "op", "error", "of", "file", "parcel"]),
        ANYTHING,
        max_size=4,
    ),
    blob=BLOBS,
)
@often
def test_any_message_is_taken_or_refused_in_a_line(
    key: str, value: Any, more: dict[str, Any], blob: bytes
) -> None:
    found = read(message({**more, key: value}, blob))
    if isinstance(found, Failed):
        assert found.failure.sentence.isprintable()
        assert len(found.failure.sentence) <= SENTENCE
