"""The worker's own record of what was proven, and which staged entries are read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import engine
from engine import Phase, SilentObserver
from engine.agent.wire import Entry, unpack_entries
from engine.connect.agent_process import AgentProcess
from engine.protocol.commands import CHECK, HASH, Command


class Kept:
    """A record in the memory of a test."""

    def __init__(self) -> None:
        self.lists: list[tuple[bytes, bytes]] = []
        self.reads = 0
        #: What it says that earlier attempts planned.
        self.planned: int | None = None

    def most(self) -> int | None:
        return self.planned

    def add(self, entries: bytes, digests: bytes) -> None:
        self.lists.append((entries, digests))

    def known(self) -> Iterator[tuple[list[Entry], bytes]]:
        self.reads += 1
        for entries, digests in list(self.lists):
            yield unpack_entries(entries), digests


class Recorded(SilentObserver):
    """An observer with a record; it loses the connection where a phase begins, if asked so."""

    def __init__(self, record: Kept, lost_at: Phase | None = None) -> None:
        self.record = record
        self._lost_at = lost_at

    def phase(self, phase: Phase) -> None:
        if phase is self._lost_at:
            raise engine.ConnectionLost("the line was cut")


@contextmanager
def reading_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """Note the paths that the source ("hash") and the target ("check") are asked to read again."""
    asked: dict[str, list[str]] = {HASH.op: [], CHECK.op: []}
    send = AgentProcess.send

    def noted(agent: AgentProcess, command: Command[Any], blob: bytes = b"", **more: Any) -> None:
        if command.op in asked and "whole" not in more:
            asked[command.op] += [entry.path for entry in unpack_entries(blob)]
        send(agent, command, blob, **more)

    with monkeypatch.context() as patch:
        patch.setattr(AgentProcess, "send", noted)
        yield asked
