"""NameFilter: keeps entries with names that the target cannot hold out of the plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from engine.agent.target.name_rules import NameRules
from engine.agent.wire import FOLDER, Entry
from engine.plan.name_check import NameCheck

#: Called with path, code and sentence of an entry that is not sent.
Failed = Callable[[str, str, str], None]


class NameFilter:
    """Passes on entries whose names the target can hold; reports the others to `failed`.

    Entries must come in the scan's order: a folder's entries together. The filter keeps
    them until the folder is complete: only then is the first of two names known to collide.
    """

    def __init__(self, rules: NameRules, failed: Failed) -> None:
        self._check = NameCheck(rules)
        self._failed = failed
        self._folder = ""
        self._kept_back: list[Entry] = []
        self._refused_folders: set[str] = set()

    def take(self, entries: Iterable[Entry]) -> list[Entry]:
        """Take entries in; return those that are known to be fine by now."""
        fine: list[Entry] = []
        for entry in entries:
            folder = entry.path.rpartition("/")[0]
            if folder != self._folder:
                fine += self.finish()
                self._folder = folder
            self._kept_back.append(entry)
        return fine

    def finish(self) -> list[Entry]:
        """Return the last folder's fine entries."""
        entries, self._kept_back = self._kept_back, []
        if self._refused_folders and self._below_refused(self._folder):
            for entry in entries:
                sentence = "its folder cannot be made at the target"
                self._failed(entry.path, "NAME_COLLISION", sentence)
            return []
        problems = self._check.check([os.fsencode(e.path.rpartition("/")[2]) for e in entries])
        for place, (code, sentence) in problems.items():
            entry = entries[place]
            if entry.kind == FOLDER:
                self._refused_folders.add(entry.path)
            self._failed(entry.path, code, sentence)
        return [entry for place, entry in enumerate(entries) if place not in problems]

    def _below_refused(self, folder: str) -> bool:
        while folder:
            if folder in self._refused_folders:
                return True
            folder = folder.rpartition("/")[0]
        return False
