"""Whatever a host puts into a field of a message: a value that fits, or AGENT_FAILED in a line."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from engine.agent.wire import AgentError, message
from engine.protocol.fields import SENTENCE
from engine.protocol.messages import READERS, Failed, Message, read_message
from tests.rig.replies import GOOD, reply

#: Texts as JSON can hold them: lone surrogates, controls, marks that change the direction.
TEXTS = some.text(some.characters(), max_size=40) | some.sampled_from(
    ["", "\0", "\x1b[2J", "\r\nDONE: all good\n", "\u202e", "\ud800", "../x", "/", "a" * 70_000]
)
NUMBERS = some.integers() | some.sampled_from([-1, 0, 1 << 31, 1 << 63, 1 << 64, 10**400])
ANYTHING: Any = some.recursive(
    some.none() | some.booleans() | NUMBERS | some.floats() | TEXTS,
    lambda inner: some.lists(inner, max_size=5) | some.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)
BLOBS = some.binary(max_size=200) | some.sampled_from([bytes(32), bytes(64), b"\xff" * 96])
FIELDS = some.sampled_from([(op, field) for op, (values, _) in GOOD.items() for field in values])
often = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def read(body: bytes) -> Message | None:
    """A message as the worker takes it; None if it is refused in one printable line."""
    refused = None
    try:
        return read_message(body)
    except AgentError as error:
        refused = error
    assert refused.code == "AGENT_FAILED"
    assert str(refused).isprintable(), repr(str(refused))
    assert len(str(refused)) <= SENTENCE
    return None


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
