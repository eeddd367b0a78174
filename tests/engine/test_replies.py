"""What an agent sends is read field by field: another type, range or size ends the agent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine import errors
from engine.agent.wire import AgentError
from engine.connect.endings import error_of
from engine.protocol.commands import COMMANDS, NAMES
from engine.protocol.fields import ITEMS, NOTES, SENTENCE, Failure, Fields
from engine.protocol.messages import (
    MAX_JSON,
    Done,
    Failed,
    ScanFailures,
    StagedParts,
    read_message,
)
from tests.rig.replies import GOOD, reply

AGENT = Path(__file__).resolve().parents[2] / "engine" / "agent"
#: Nothing that any field may be.
ODD: list[Any] = [3.5, {"x": []}, [[]], [None], -(1 << 70), 1 << 70, "\ud800", "a\0b"]
FIELDS = [(op, field) for op, (values, _) in GOOD.items() for field in values]


def test_every_command_with_reply_fields_has_a_valid_reply_to_test_with() -> None:
    without = {"open", "stat", "sync", "rate", "relay", "check", "expect", "discard", "inside"}
    assert GOOD.keys() | without | {"leave", "clean"} == COMMANDS.keys()
    for op, (values, blob) in GOOD.items():
        read_message(reply(op, values, blob))


@pytest.mark.parametrize(("op", "field"), FIELDS)
def test_a_missing_or_invalid_reply_field_counts_as_agent_failed(op: str, field: str) -> None:
    values, blob = GOOD[op]
    missing = {name: value for name, value in values.items() if name != field}
    odd = [value for value in ODD if not (value == "a\0b" and is_for_people(field))]
    # A list with an empty list says of one entry that its id is not known.
    odd = [value for value in odd if not (field == "ids" and value == [[]])]
    for changed in [missing, *({**values, field: value} for value in odd)]:
        with pytest.raises(AgentError, match=rf"protocol error: .*{field}") as caught:
            read_message(reply(op, changed, blob))
        assert caught.value.code == "AGENT_FAILED"
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < SENTENCE


def is_for_people(field: str) -> bool:
    """Texts for people are shown in their printable form, whatever is in them."""
    return field == "there"


@pytest.mark.parametrize("op", ["hash", "check", "complete", "send", "receive"])
def test_a_reply_with_a_truncated_digest_is_refused(op: str) -> None:
    values, _ = GOOD.get(op, ({}, b""))
    with pytest.raises(AgentError, match="digest"):
        read_message(reply(op, values, bytes(33)))


@pytest.mark.parametrize("values", [bytes(0), bytes(64)])
def test_a_file_in_slices_has_one_digest(values: bytes) -> None:
    with pytest.raises(AgentError, match="digest of one file"):
        read_message(reply("complete", {"whole": "a"}, values))


@pytest.mark.parametrize("ids", [[], [[1, 2]], [[1, 2], [], []]])
def test_each_entry_has_an_id_and_a_digest(ids: list[Any]) -> None:
    with pytest.raises(AgentError, match="ids and digests"):
        read_message(reply("hash", {"ids": ids, "whole": "", "gone": []}, bytes(64)))


# -- positions in a list -------------------------------------------------------

#: What `int` reads, and no agent writes; and what lies outside a list of two.
NO_POSITIONS = ["", "-1", "+1", " 1", "1 ", "1_0", "01", "00", "1.0", "x", "\u0661", "\u00b2", "2"]


@pytest.mark.parametrize("key", NO_POSITIONS)
@pytest.mark.parametrize("op", ["send", "receive", "compare"])
def test_a_position_is_written_in_plain_digits_and_lies_in_the_list(op: str, key: str) -> None:
    values, _ = GOOD[op]
    field, value = ("others", "b") if op == "compare" else ("errors", ["VANISHED", "x"])
    blob = b"" if op == "compare" else bytes(64)

    for good in ("0", "1"):
        read_message(reply(op, {**values, field: {good: value}}, blob))
    with pytest.raises(AgentError, match=f"protocol error: .*{field}"):
        read_message(reply(op, {**values, field: {key: value}}, blob))


def test_an_error_of_a_parcel_without_slices_is_its_files() -> None:
    values = {**GOOD["receive"][0], "errors": {"0": ["IO_ERROR", "x"]}}
    read_message(reply("receive", values, b""))


@pytest.mark.parametrize("gone", [[2], [-1], ["0"]])
def test_a_missing_entrys_position_lies_in_the_list(gone: list[Any]) -> None:
    with pytest.raises(AgentError, match="gone"):
        read_message(reply("hash", {**GOOD["hash"][0], "gone": gone}, bytes(64)))


@pytest.mark.parametrize("states", ["z", "asz", "A", "a s"])
def test_a_state_is_one_of_eight_letters(states: str) -> None:
    with pytest.raises(AgentError, match="states"):
        read_message(reply("compare", {"states": states, "others": {}, "errors": {}}))


def test_an_entry_is_hidden_at_the_target_with_a_reason_only() -> None:
    for states, errors_found in (("ax", {}), ("aa", {"1": ["PERMISSION_DENIED", "x"]})):
        values = {"states": states, "others": {}, "errors": errors_found}
        with pytest.raises(AgentError, match="without a reason"):
            read_message(reply("compare", values))


def part(upto: int = 0, *slices: list[Any]) -> bytes:
    """The message about a file of 100 bytes that arrived in part."""
    found = {"file": ["a", 100, 5, 7], "upto": upto, "slices": list(slices)}
    return json.dumps({"parts": [found]}).encode()


@pytest.mark.parametrize(
    "body",
    [
        part(-1),
        part(101),
        part(1 << 62),
        part(0, [-1, 5]),
        part(0, [0, -5]),
        part(0, [0, 101]),
        part(0, [60, 41]),
        part(0, [101, 0]),
        part(0, [1 << 62, 1 << 62]),
        part(0, [0, 5], [99, 2]),
        part(0, [0, 5], [4, 1]),
        part(0, [50, 5], [0, 5]),
        part(0, [0, 5, "digest"]),
    ],
)
def test_the_delivered_part_of_a_file_lies_inside_it(body: bytes) -> None:
    with pytest.raises(AgentError, match="protocol error") as caught:
        read_message(body)
    assert caught.value.code == "AGENT_FAILED"


@pytest.mark.parametrize("body", [part(), part(100), part(0, [0, 60], [60, 40])])
def test_all_of_a_file_may_have_arrived(body: bytes) -> None:
    assert isinstance(read_message(body), StagedParts)


@pytest.mark.parametrize("more", [1, 31, 33])
def test_staged_entries_come_with_whole_digests(more: int) -> None:
    with pytest.raises(AgentError, match="digest"):
        read_message(json.dumps({"held": 1, "list": 5}).encode() + b"\0" + bytes(5 + more))


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"done": {}}',
        b'{"done": {}, "op": "unheard_of"}',
        b'{"done": [], "op": "sync"}',
        b'{"lost": 1}',
        b'{"hello": 1}',
        b'{"hello": "x", "python": "3.11", "system": "linux"}',
        b'{"progress": 1}',
        b'{"parts": [5]}',
        b'{"parts": [{"file": ["a", 1, 2], "upto": 0, "slices": []}]}',
        b'{"held": 1, "list": "x"}',
        b'{"held": 1, "list": 5}',
        b'{"delivered": 5}',
        b'{"error": ["X"]}',
        b'{"failures": [["a", "X"]]}',
    ],
)
def test_a_message_of_no_known_form_is_refused(body: bytes) -> None:
    with pytest.raises(AgentError):
        read_message(body)


# -- what a person reads (security findings H2, H3) -----------------------------------


HOSTILE = "\x1b]0;TITLE\x07\x1b[2J\r\nFAKE LINE DONE: all good\n\u202e" + "x" * 5_000_000


def test_an_error_text_from_an_agent_is_cut_to_one_short_printable_line() -> None:
    failed = read_message(json.dumps({"error": ["NO_SPACE", HOSTILE[:100_000]]}).encode())
    assert isinstance(failed, Failed)
    assert failed.failure.code == "NO_SPACE"
    assert failed.failure.sentence.isprintable()
    assert len(failed.failure.sentence) <= SENTENCE

    scanned = read_message(json.dumps({"failures": [["a", "X", HOSTILE[:100_000]]]}).encode())
    assert isinstance(scanned, ScanFailures)
    assert scanned.problems[0].sentence.isprintable()


@pytest.mark.parametrize("code", ["", "\x1b[2J", "lower", "A" * 41, "NO SPACE", "NO_SPACE\n"])
def test_an_invalid_error_code_from_an_agent_becomes_agent_failed(code: str) -> None:
    failed = read_message(json.dumps({"error": [code, "x"]}).encode())
    assert isinstance(failed, Failed)
    assert failed.failure.code == "AGENT_FAILED"


def test_a_message_with_too_much_json_or_too_many_items_is_refused() -> None:
    with pytest.raises(AgentError):
        read_message(json.dumps({"error": ["X", "x" * MAX_JSON]}).encode())
    with pytest.raises(AgentError):
        read_message(json.dumps({"failures": [["a", "X", "x"]] * (ITEMS + 1)}).encode())


class Target:
    place, is_target = "lab", True


def test_an_error_code_reserved_for_the_worker_is_not_accepted_from_an_agent() -> None:
    agent: Any = Target()
    assert error_of(agent, Failure("CANCELLED", "x")).code == "AGENT_FAILED"
    assert error_of(agent, Failure("REPLACED", "x")).code == "REPLACED"
    agent.is_target = False
    assert error_of(agent, Failure("REPLACED", "x")).code == "AGENT_FAILED"


#: Codes that only the worker knows, and one that no program has.
NOT_AN_AGENTS = [*sorted(errors.BY_CODE.keys() - errors.AGENT_CODES), "MADE_UP"]


def test_an_agent_knows_nothing_of_the_workers_connections_and_requests() -> None:
    of_the_worker = {kind.code for kind in errors.ConnectError.__subclasses__()}
    of_the_worker |= {"CONNECT_FAILED", "CANCELLED", "INTERRUPTED", "FAILED", "AGENT_LOST"}
    assert of_the_worker - set(NOT_AN_AGENTS) == {"CONNECTION_LOST"}


@pytest.mark.parametrize("code", NOT_AN_AGENTS)
def test_a_code_that_is_not_an_agents_is_its_failure(code: str) -> None:
    agent: Any = Target()

    error = error_of(agent, Failure(code, "x"))

    assert (type(error), error.code) == (errors.AgentFailed, "AGENT_FAILED")
    assert code in str(error)


@pytest.mark.parametrize("code", NOT_AN_AGENTS)
def test_an_entry_fails_with_a_code_of_the_agents_only(code: str) -> None:
    failures = {"failures": [["a", code, "x"]]}
    scanned = read_message(json.dumps(failures).encode())
    assert isinstance(scanned, ScanFailures)
    assert scanned.problems == (("a", "AGENT_FAILED", "x"),)

    values, blob = GOOD["send"]
    sent = read_message(reply("send", {**values, "errors": {"0": [code, "x"]}}, blob))
    assert isinstance(sent, Done)
    assert sent.reply.failures == {0: ("AGENT_FAILED", "x")}


def test_every_code_that_an_agent_has_is_known() -> None:
    code = re.compile(r'"([A-Z][A-Z_]{3,})"')
    sources = "".join(path.read_text("utf-8") for path in sorted(AGENT.rglob("*.py")))
    of_the_system = {
        "EUCLEAN", "F_SETPIPE_SZ", "O_PATH", "O_TMPFILE", "PC_NAME_MAX", "SC_OPEN_MAX", "SEEK_DATA",
        "SSH_CONNECTION",
    }  # fmt: skip
    found = set(code.findall(sources)) - of_the_system
    assert found == errors.AGENT_CODES - {"CONNECTION_LOST"} | {*NOTES}


def test_a_parcel_is_not_torn_without_a_failure() -> None:
    values, blob = GOOD["send"]
    with pytest.raises(AgentError, match="torn"):
        read_message(reply("send", {**values, "torn": True, "errors": {}}, blob))
    read_message(reply("send", {**values, "torn": True}, blob))


@pytest.mark.parametrize("most", [-5, -(1 << 70), 1 << 70, True])
def test_an_impossible_length_of_names_counts_as_agent_failed(most: int) -> None:
    fields = Fields({"rules": [most, False, False, True]}, b"", "names")
    with pytest.raises(AgentError) as caught:
        NAMES.read(fields)
    assert caught.value.code == "AGENT_FAILED"
