"""What an account's agents lie about: each reply, each frame, each phase; made from COMMANDS.

A new command has no row in SCENARIOS, and `test_every_command_has_a_case` fails: add the row that
says in which transfer the command is sent to a source, and to a target.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.protocol.commands import COMMANDS
from tests.hostile.lies import in_place_of

#: The commands that a transfer of the command line sends to each end, by the scenario in
#: `worlds` that has them sent.
SCENARIOS: dict[str, dict[str, str]] = {
    "source": {
        **dict.fromkeys(
            ("inspect", "open", "scan", "send", "relay", "remove", "remove_folders"), "tree"
        ),
        "hash": "same",
        "stat": "file",
        "rate": "slices",
    },
    "target": {
        **dict.fromkeys(
            ("inspect", "stage", "expect", "receive", "publish", "unpublished"), "tree"
        ),
        **dict.fromkeys(("open", "hash", "compare", "sync", "adjust", "clean"), "same"),
        **dict.fromkeys(("close_archive", "inside", "publish_archive"), "archive"),
        **dict.fromkeys(("complete", "leave"), "slices"),
        **dict.fromkeys(("check", "discard"), "resumed"),
        "names": "names",
    },
}
#: Commands that no transfer of the command line sends, and the tests that have their replies lie.
ELSEWHERE = {
    "fence_out": "engine/test_reply_properties::test_any_value_of_any_reply_field_is_taken_or_refused_in_a_line"  # noqa: E501
}
#: What has an honest worker send a command: the rules of names are asked for if this is unknown,
#: what was not published if there is some.
_FIRST = {
    "unpublished": """
_said = _say
def _say(self, body, blob=b""):
    if body.get("op") == "publish":
        body["done"]["refused"] = True
    _said(self, body, blob)
""",
    "names": """
_said = _say
def _say(self, body, blob=b""):
    if body.get("op") == "inspect":
        body["done"]["case_folding"] = None
    _said(self, body, blob)
""",
}
#: Of these a copy sends none.
_OF_A_MOVE = ("remove", "remove_folders", "inside", "clean")


class Lie(NamedTuple):
    """Python in place of a reply; `hangs`: only a person ends it soon, if the reply is needed."""

    code: str
    hangs: bool = False


_ESCAPES = r'"\x1b]0;PWNED\x07\x1b[2J\r\nDONE: all good\u202e" + "x" * 1000000'
_RAW = "with self._sending: wire.write_all(2, DATA)"


def _raw(data: str, after: str = "_say(self, body, blob)") -> str:
    return _RAW.replace("DATA", data) + "\n" + after


REPLIES = {
    "missing": Lie("pass", hangs=True),
    "error": Lie(f'_say(self, {{"error": ["\\x1b[31mDONE", {_ESCAPES}]}})'),
    "known_error": Lie(f'_say(self, {{"error": ["NO_SPACE", {_ESCAPES}]}})'),
    "forged_code": Lie('_say(self, {"error": ["CANCELLED", "x"]})'),
    "no_object": Lie('_say(self, {"done": "x", "op": body["op"]})'),
    "wrong_types": Lie(
        '_say(self, {"done": {key: {"x": 1.5} for key in done}, "op": body["op"]}, blob)'
    ),
    "huge_numbers": Lie(
        '_say(self, {"done": {key: 10 ** 400 for key in done}, "op": body["op"]}, b"\\xff" * 31)'
    ),
    "no_fields": Lie('_say(self, {"done": {}, "op": body["op"]})'),
    "huge": Lie('_say(self, {"done": {**done, "more": "A" * (60 << 20)}, "op": body["op"]}, blob)'),
    "many": Lie('_say(self, {"done": {**done, "x": [{}] * 15000000}, "op": body["op"]}, blob)'),
    "huge_blob": Lie("_say(self, body, bytes(60 << 20))"),
    "late": Lie("time.sleep(1.5)\n_say(self, body, blob)"),
    "twice": Lie("_say(self, body, blob)\n_say(self, body, blob)"),
    "of_another": Lie('_say(self, {"done": {}, "op": "sync"})\n_say(self, body, blob)'),
    "of_none": Lie('_say(self, {"done": {}, "op": "pwn\\x1b[2J"})'),
}
FRAMES = {
    "odd_kind": Lie(_raw('struct.pack(">cI", b"Z", 5) + b"hello"')),
    "payload": Lie(_raw('struct.pack(">cI", b"D", 5) + b"hello"')),
    "head": Lie(_raw('wire.encode(wire.HEAD, {"kind": "file", "parcel": 1})')),
    "length_0": Lie(_raw('struct.pack(">cI", b"J", 0)')),
    "length_2_31": Lie(_raw('struct.pack(">cI", b"J", 1 << 31) + b"x" * 4096')),
    "too_long": Lie(_raw('struct.pack(">cI", b"J", (64 << 20) + 1) + b"x" * 4096')),
    "no_json": Lie(_raw('struct.pack(">cI", b"J", 5) + b"{nope"')),
    "nested": Lie(_raw('struct.pack(">cI", b"J", 200000) + b"[" * 200000')),
    "truncated": Lie(_raw('struct.pack(">cI", b"J", 1000) + b"{}"', "os._exit(0)")),
    "unfinished": Lie(_raw('struct.pack(">cI", b"J", 60 << 20) + b"{}"', "time.sleep(60)"), True),
    "text": Lie(_raw('b"Killed: all is well\\r\\n\\x1b[2J" * 100')),
    "magic_again": Lie(_raw("wire.MAGIC")),
    "endless_zeros": Lie("while True:\n    " + _raw("bytes(1 << 16)", "pass")),
    "endless_text": Lie("while True:\n    " + _raw('b"noise " * 10000', "pass")),
    "endless_beats": Lie(
        "number = 0\nwhile True:\n    number += 1\n"
        '    _say(self, {"beat": True, "work": number * 1000, "waits": False})',
        hangs=True,
    ),
    "beats_of_before": Lie('_say(self, {"beat": True})'),
    "endless_progress": Lie('while True:\n    _say(self, {"progress": 1, "parcel": 1})', True),
    "endless_replies": Lie("while True:\n    _say(self, body, blob)", hangs=True),
    "endless_scan": Lie(
        'from engine.agent.wire import Entry, pack_entries\n'
        'some = pack_entries([Entry("p%d" % n, "f", 1, 1, 0o644, n) for n in range(2500)])\n'
        'while True:\n    _say(self, {"entries": 2500}, some)',
        hangs=True,
    ),
}  # fmt: skip
PHASES = {
    "beats_only": Lie("time.sleep(60)", hangs=True),
    "silent": Lie("os.kill(os.getpid(), signal.SIGSTOP)", hangs=True),
    "ends_with_0": Lie("os._exit(0)"),
    "killed": Lie("os.kill(os.getpid(), signal.SIGKILL)"),
    "deaf": Lie("os.close(0)\n_say(self, body, blob)\ntime.sleep(60)", hangs=True),
}
KINDS = {"reply": REPLIES, "frame": FRAMES, "phase": PHASES}
#: Frames are the same whatever reply they stand for: one early, one late at each end is enough.
_FOR_FRAMES = {"source": ("inspect", "send", "remove"), "target": ("stage", "receive", "publish")}
#: Of each kind, for the main lane: a lie that ends by itself, and one that hangs.
REPRESENTATIVE = {
    ("source", "scan", "error"),
    ("source", "send", "wrong_types"),
    ("source", "remove", "twice"),
    ("source", "send", "odd_kind"),
    ("source", "send", "killed"),
    ("source", "send", "endless_replies"),
    ("source", "inspect", "many"),
    ("source", "scan", "beats_only"),
    ("target", "stage", "no_fields"),
    ("target", "receive", "known_error"),
    ("target", "publish", "missing"),
    ("target", "receive", "length_2_31"),
    ("target", "publish", "ends_with_0"),
    ("target", "inspect", "silent"),
    ("target", "inspect", "huge"),
}


class Case(NamedTuple):
    """A lie in place of the reply to `op`, told by one end of a transfer."""

    role: str
    op: str
    lie: str
    mode: str

    @property
    def hangs(self) -> bool:
        """Whether SIGTERM may have to end it."""
        return self._told.hangs

    @property
    def scenario(self) -> str:
        """The transfer in which the command is sent."""
        return SCENARIOS[self.role][self.op]

    @property
    def program(self) -> str:
        """The program of lies."""
        text = _FIRST.get(self.op, "") + in_place_of(self.op, self._told.code)
        return f"if ROLE == {self.role!r}:\n" + "\n".join(
            f"    {line}" for line in text.splitlines()
        )

    @property
    def _told(self) -> Lie:
        return next(lies[self.lie] for lies in KINDS.values() if self.lie in lies)

    @property
    def is_representative(self) -> bool:
        """Whether the main lane runs it, too."""
        return (self.role, self.op, self.lie) in REPRESENTATIVE and self.mode == "move"

    def __str__(self) -> str:
        return "-".join(self)


def cases() -> Iterator[Case]:
    """The cross product."""
    for role, scenarios in SCENARIOS.items():
        for op in COMMANDS:
            if op not in scenarios:
                continue
            for kind, lies in KINDS.items():
                if kind == "frame" and op not in _FOR_FRAMES[role]:
                    continue
                for mode in ("move",) if op in _OF_A_MOVE else ("copy", "move"):
                    yield from (Case(role, op, lie, mode) for lie in lies)
