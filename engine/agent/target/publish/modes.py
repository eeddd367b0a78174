"""Gives files that the target had already the mode of the source's, once they count as the same."""

from __future__ import annotations

import os
import stat

from engine.agent.target.staging.kept import has_size_and_time
from engine.agent.tree import OPEN_FILE, Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FILE, AgentError, Entry, explain, show

if TYPE_CHECKING:
    from typing import Iterable

#: The most problems that are reported one by one.
NAMED = 100


def adjust(tree: Tree, entries: Iterable[Entry], bits: int) -> tuple[list[list[str]], int]:
    """Give each plain file these bits of its entry's mode; return some problems and their number.

    A file of another size or time by now is left alone: it is not the one that was compared.
    """
    problems: list[list[str]] = []
    count = 0
    for entry in entries:
        if entry.kind != FILE:
            continue
        try:
            _adjust(tree, entry, bits)
        except (OSError, AgentError) as error:
            problem = explain(error, entry.path) if isinstance(error, OSError) else error
            count += 1
            if len(problems) < NAMED:
                problems.append([entry.path, problem.code, str(problem)])
    return problems, count


def _adjust(tree: Tree, entry: Entry, bits: int) -> None:
    folder, name = tree.parent(entry.path)
    before = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_IMODE(before.st_mode) & bits == entry.mode & bits:
        return
    fd = os.open(name, OPEN_FILE, dir_fd=folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not has_size_and_time(folder, found, entry):
            return
        if found.st_nlink > 1:
            raise AgentError(
                "PERMISSION_DENIED",
                f"{show(entry.path)} has several names at the target: its mode is that of all",
            )
        os.fchmod(fd, stat.S_IMODE(found.st_mode) & ~bits | entry.mode & bits)
        if stat.S_IMODE(os.fstat(fd).st_mode) & bits != entry.mode & bits:
            raise AgentError(
                "PERMISSION_DENIED", f"{show(entry.path)} did not take its mode at the target"
            )
    finally:
        os.close(fd)
