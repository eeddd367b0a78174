"""Hosts that lie: the agents are ours with more Python at the end of some of their modules.

A module of the sender's only makes a hostile source; one of the target's, a hostile target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import engine
from engine.connect import bundle
from tests.rig.planted_code import changing_sources

#: Puts Python at the end of modules of the agents that are started from then on.
Lie = Callable[..., None]
ROLES = ("source", "target")


@contextmanager
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lie]:
    """Change modules of the agents, until the end of this: `source_sender` is `source.sender`."""

    with changing_sources(monkeypatch) as change:

        def with_text(**texts: str) -> None:
            known = {name.replace(".", "_") for role in ROLES for name in bundle.modules(role)}
            assert texts.keys() <= known
            change(
                lambda name, source: source + b"\n" + texts.get(name.replace(".", "_"), "").encode()
            )

        yield with_text


#: A scan that reports the entries in FOUND.
SCAN = """
def do_scan(self, **_):
    entries = [Entry(path, kind, size, 5, 0o644, 0, link) for path, kind, size, link in FOUND]
    self._context.send({"entries": len(entries)}, pack_entries(entries))
    self._context.send({"failures": []})
    counts = {"hard_links": 0, "links_skipped": 0, "links_unknown": 0, "holes": 0}
    return {**counts, "blob": pack_entries([])}
Source.do_scan = do_scan
"""
#: A sender that has all files that were found; links lead to the canary.
SEND = """
def _made_up(self, entry, archive=0):
    data = entry.link.encode() if entry.kind == "l" else b"x" * entry.size
    if isinstance(archive, ZipWriter):
        archive.add(entry, zlib.crc32(data), data)
    else:
        self._out.write(data)
    return hashlib.sha256(data).digest()
Sender._file = Sender._member = _made_up
"""

#: A sender that takes whatever looks like a key from all command lines and environments of the
#: machine, and gives the receiver commands under each of them, whatever their number may be.
THIEF = """
import os, re
from engine.agent.wire import HEADER, Seal
_do_relay = Source.do_relay
def _guesses():
    texts = []
    for process in os.listdir("/proc"):
        for name in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (process, name), "rb") as file:
                    texts.append(file.read())
            except OSError:
                continue
    text = b"\\n".join(texts)
    for found in re.findall(rb"(?:[0-9a-f]{2}){64,}", text):
        text += b"\\n" + bytes.fromhex(found.decode())
    for found in set(re.findall(rb"[0-9a-f]{32,64}", text)):
        for at in range(0, len(found) - 31, 32):
            yield found[at:at + 32].decode()
def _numbered(key, number):
    seal = Seal(key)
    seal._number = number
    return seal
def do_relay(self, blob):
    with open("TRIED", "a") as tried:
        for key in _guesses():
            tried.write(key + "\\n")
            for number in range(12):
                signed = _numbered(key, number)._sign(blob[HEADER.size + Seal.SIZE:])
                if signed == blob[HEADER.size:HEADER.size + Seal.SIZE]:
                    tried.write("THE KEY\\n")
                    self._writer.pass_on(_numbered(key, number).frame(
                        {"op": "stage", "root": "/", "path": "PLANTED", "transfer_id": "x",
                         "attempt": 9, "options": {}}))
    return _do_relay(self, blob)
Source.do_relay = do_relay
"""


def found(*entries: tuple[str, str, int, str]) -> str:
    """A scan that finds these: path, kind, size and a link's target of each."""
    return SCAN.replace("FOUND", repr(list(entries)))


#: Put before the agent's way to speak, in the module of one end: `body`, `blob` are what it says.
TWIST = """
from engine.agent.context import Context
_say = Context.send
def say(self, body, blob=b""):
    done = body.get("done", {})
    more = []
    if CONDITION:
        CHANGE
    _say(self, body, blob)
    for one in more:
        _say(self, *one)
Context.send = say
"""


def twist(condition: str, change: str) -> str:
    """Have an agent change what it says, where a condition holds."""
    return TWIST.replace("CONDITION", condition).replace("CHANGE", change)


def reply_to(op: str, change: str) -> str:
    """Have an agent change its reply to a command."""
    return twist(f'body.get("op") == "{op}"', change)


def failed_agent(run: Callable[[], object]) -> str:
    """The sentence of the AgentFailed that a run raises."""
    with pytest.raises(engine.EngineError) as caught:
        run()
    assert (type(caught.value), caught.value.code) == (engine.AgentFailed, "AGENT_FAILED")
    return str(caught.value)
