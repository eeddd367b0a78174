"""Entries on their way to the plan, held against the names that the target can hold."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from engine.agent.names import NameCheck, NameRules
from engine.agent.wire import FOLDER, Entry

#: Told of an entry that is not sent: path, code, sentence, whether it is no folder.
Failed = Callable[[str, str, str], None]


class NameGate:
    """Lets through what the target can hold; the rest goes to `failed`.

    Entries must come in the scan's order: a folder's entries together. They
    are held back until the folder is complete, since of two names that become
    one the first is known only then.
    """

    def __init__(self, rules: NameRules, failed: Failed) -> None:
        self._check = NameCheck(rules)
        self._failed = failed
        self._folder = ""
        self._held: list[Entry] = []
        self._shut: set[str] = set()

    def take(self, entries: Iterable[Entry]) -> list[Entry]:
        """Hand in entries; returns those that are known to be fine by now."""
        fine: list[Entry] = []
        for entry in entries:
            folder = entry.path.rpartition("/")[0]
            if folder != self._folder:
                fine += self.finish()
                self._folder = folder
            self._held.append(entry)
        return fine

    def finish(self) -> list[Entry]:
        """The last folder's entries."""
        held, self._held = self._held, []
        if self._shut and self._below_shut(self._folder):
            for entry in held:
                sentence = "the folder it lies in cannot be there"
                self._failed(entry.path, "NAME_COLLISION", sentence)
            return []
        problems = self._check.check([os.fsencode(e.path.rpartition("/")[2]) for e in held])
        for place, (code, sentence) in problems.items():
            entry = held[place]
            if entry.kind == FOLDER:
                self._shut.add(entry.path)
            self._failed(entry.path, code, sentence)
        return [entry for place, entry in enumerate(held) if place not in problems]

    def _below_shut(self, folder: str) -> bool:
        while folder:
            if folder in self._shut:
                return True
            folder = folder.rpartition("/")[0]
        return False
