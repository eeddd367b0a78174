"""Walking a tree: what is there, in a steady order, without following links."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import Callable, Sequence

from engine.agent.tree import Tree, entry_from
from engine.agent.wire import FOLDER, AgentError, Entry, explain, is_staging, show


class Filter:
    """Glob patterns over the path and over the last name.

    An excluded folder takes everything below it along. With include patterns,
    only files that match one are taken, and folders only as the way to them.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.include, self.exclude = include, exclude

    def takes(self, path: str, name: str, folder: bool) -> bool:
        """Whether an entry is part of the tree."""
        if any(_matches(path, name, pattern) for pattern in self.exclude):
            return False
        if not self.include or folder:
            return True
        return any(_matches(path, name, pattern) for pattern in self.include)

    def carries_folders(self) -> bool:
        """Whether folders are carried for their own sake, also empty ones."""
        return not self.include


def _matches(path: str, name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(path, pattern)


def scan(
    tree: Tree,
    wanted: Filter,
    found: Callable[[Entry], None],
    failed: Callable[[str, str, str], None],
) -> None:
    """Call `found` for every entry, a folder before what is in it, names in byte order.

    What cannot be read or carried goes to `failed` as path, code, sentence.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        folders = []
        try:
            folder = tree.folder(above)
            with os.scandir(folder) as listing:
                names = sorted(listing, key=lambda item: os.fsencode(item.name))
        except OSError as error:
            if not above:
                raise explain(error, above or ".") from error
            _report(failed, above, error)
            continue
        for item in names:
            path = f"{above}/{item.name}" if above else item.name
            try:
                entry = entry_from(item.stat(follow_symlinks=False), folder, item.name, path)
            except OSError as error:
                _report(failed, path, error)
                continue
            if entry is None:
                if wanted.takes(path, item.name, False):
                    failed(path, "KIND_NOT_CARRIED", f"{show(path)} is a device, pipe or socket")
            elif entry.kind == FOLDER:
                if not is_staging(item.name) and wanted.takes(path, item.name, True):
                    folders.append(path)
                    if wanted.carries_folders():
                        found(entry)
            elif wanted.takes(path, item.name, False):
                found(entry)
        waiting.extend(reversed(folders))


def _report(failed: Callable[[str, str, str], None], path: str, error: OSError) -> None:
    problem: AgentError = explain(error, path)
    failed(path, problem.code, str(problem))
