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


class _Way:
    """A folder on the way down, and whether `found` knows of it."""

    def __init__(self, path: str, entry: Entry | None, above: _Way | None) -> None:
        self.path, self.entry, self.above = path, entry, above

    def tell(self, found: Callable[[Entry], None]) -> None:
        """Call `found` for it and the folders above it, once."""
        untold = []
        way: _Way | None = self
        while way is not None and way.entry is not None:
            untold.append(way.entry)
            way.entry, way = None, way.above
        for entry in reversed(untold):
            found(entry)


def scan(
    tree: Tree,
    wanted: Filter,
    found: Callable[[Entry], None],
    failed: Callable[[str, str, str], None],
) -> None:
    """Call `found` for every entry, a folder before what is in it, names in byte order.

    What cannot be read or carried goes to `failed` as path, code, sentence.
    """
    waiting = [_Way("", None, None)]
    while waiting:
        here = waiting.pop()
        above = here.path
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
            if entry is not None and entry.kind == FOLDER:
                if not is_staging(item.name) and wanted.takes(path, item.name, True):
                    folders.append(_Way(path, entry, here))
                    if wanted.carries_folders():
                        folders[-1].tell(found)
            elif wanted.takes(path, item.name, False):
                if entry is None:
                    failed(path, "KIND_NOT_CARRIED", f"{show(path)} is a device, pipe or socket")
                else:
                    here.tell(found)
                    found(entry)
        waiting.extend(reversed(folders))


def _report(failed: Callable[[str, str, str], None], path: str, error: OSError) -> None:
    problem: AgentError = explain(error, path)
    failed(path, problem.code, str(problem))
