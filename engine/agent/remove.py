"""Removing at the source what has been delivered, and nothing else."""

from __future__ import annotations

import errno
import os
import stat

from engine.agent.tree import Tree, unchanged
from engine.agent.wire import FOLDER, Entry, explain, show


def remove_entries(source: Tree, entries: list[Entry]) -> tuple[int, list[list[str]]]:
    """Remove files and links that are still what was scanned; return the count and what stayed.

    What stayed comes as path, code, sentence. An entry that is gone already counts as removed.
    """
    source.forget()  # A folder that was moved away since is no longer ours to empty.
    removed, kept = 0, []
    for entry in entries:
        if entry.kind == FOLDER:
            continue
        try:
            folder, name = source.parent(entry.path)
            if unchanged(entry, os.stat(name, dir_fd=folder, follow_symlinks=False)):
                os.unlink(name, dir_fd=folder)
            else:
                sentence = f"{show(entry.path)} was delivered, but stays: it changed since"
                kept.append([entry.path, "SOURCE_CHANGED", sentence])
                continue
        except FileNotFoundError:
            pass
        except OSError as error:
            problem = explain(error, entry.path)
            sentence = (
                f"{show(entry.path)} was delivered, but stays: {os.strerror(error.errno or 0)}"
            )
            kept.append([entry.path, problem.code, sentence])
            continue
        removed += 1
    return removed, kept


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
                os.rmdir(name, dir_fd=folder)
                removed += 1
        except OSError as error:
            full += error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                problem = explain(error, entry.path)
                kept.append([entry.path, problem.code, str(problem)])
    return removed, full, kept
