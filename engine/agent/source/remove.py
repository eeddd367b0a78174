"""Removing at the source what has been delivered, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Iterator

from engine.agent.tree import Tree, unchanged
from engine.agent.wire import FOLDER, AgentError, Entry, explain, show


def remove_entries(source: Tree, entries: list[Entry]) -> tuple[int, list[list[str]]]:
    """Remove files and links that are still what was scanned; return the count and what stayed.

    What stayed comes as path, code, sentence. An entry that is gone already counts as removed.
    """
    source.forget()  # A folder that was moved away since is no longer ours to empty.
    removed, kept = 0, []
    files = (entry for entry in entries if entry.kind != FOLDER)
    for above, together in groupby(files, lambda entry: entry.path.rpartition("/")[0]):
        with _time_kept(source, above):
            for entry in together:
                problem = _remove(source, entry)
                if problem:
                    kept.append([entry.path, *problem])
                else:
                    removed += 1
    return removed, kept


def _remove(source: Tree, entry: Entry) -> tuple[str, ...]:
    """Remove one entry; code and sentence if it stays."""
    try:
        folder, name = source.parent(entry.path)
        if not unchanged(entry, os.stat(name, dir_fd=folder, follow_symlinks=False)):
            sentence = f"{show(entry.path)} was delivered, but stays: it changed since"
            return "SOURCE_CHANGED", sentence
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        why = os.strerror(error.errno or 0)
        sentence = f"{show(entry.path)} was delivered, but stays: {why}"
        return explain(error, entry.path).code, sentence
    return ()


@contextmanager
def _time_kept(source: Tree, path: str) -> Iterator[None]:
    """Give a folder the time back that it had: stopped half-way, the next run delivers it again.

    Not the tree's own top, which is not delivered again.
    """
    found = None
    with suppress(OSError, AgentError):
        found = os.fstat(source.folder(path)) if path else None
    yield
    if found:
        with suppress(OSError, AgentError):
            os.utime(source.folder(path), ns=(found.st_atime_ns, found.st_mtime_ns))


def remove_folders(source: Tree, entries: list[Entry]) -> tuple[int, int, list[list[str]]]:
    """Remove those folders of a list that are empty now, the last first.

    One that is in use, gone or of another kind by now stays as it is. Returns how
    many went, how many were not empty, and those that could not be removed as
    path, code, sentence.
    """
    source.forget()
    removed, full = 0, 0
    kept: list[list[str]] = []
    for entry in reversed(entries):
        if entry.kind != FOLDER:
            continue
        try:
            folder, name = source.parent(entry.path)
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                with _time_kept(source, entry.path.rpartition("/")[0]):
                    os.rmdir(name, dir_fd=folder)
                removed += 1
        except OSError as error:
            full += error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                problem = explain(error, entry.path)
                kept.append([entry.path, problem.code, str(problem)])
    return removed, full, kept
