"""Removing delivered entries at the source, and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby

from engine.agent.inodes import keeps
from engine.agent.tree import Tree, unchanged
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FOLDER, AgentError, Entry, explain, show
from engine.agent.write_access import accessed, writable

if TYPE_CHECKING:
    from typing import Iterator


def remove_entries(source: Tree, entries: list[Entry]) -> tuple[int, list[list[str]]]:
    """Remove files and links that are unchanged since the scan; return their number.

    Also returns the entries that stayed, as path, code, sentence. An entry that is gone already
    counts as removed.
    """
    source.forget()  # A cached folder may have been moved away, with files that must stay.
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
    """Remove one entry; return code and sentence if it stays, () if not."""
    try:
        folder, name = source.parent(entry.path)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        # Without a number only size and time would show that it is the one that was scanned.
        unnumbered = not entry.ino and keeps(found.st_dev, folder, name)
        if unnumbered or not unchanged(entry, found):
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
    """Restore a folder's time: after a stop half-way, the next run delivers the folder again.

    Does not restore the time of the tree's own top, which is not delivered again. Opens a folder
    of this user that forbids changes meanwhile.
    """
    found = None
    with ExitStack() as opened:
        with suppress(OSError, AgentError):
            folder = source.folder(path)
            found = os.fstat(folder) if path else None
            opened.enter_context(writable(folder))
        yield
    if found:
        with suppress(OSError, AgentError):
            os.utime(source.folder(path), ns=(accessed(found), found.st_mtime_ns))


def remove_folders(source: Tree, entries: list[Entry]) -> tuple[int, int, list[list[str]]]:
    """Remove those folders of a list that are empty now, the last first.

    A folder that is in use, gone, or something else by now stays. Returns the number of removed
    folders, the number of full ones, and those that could not be removed as path, code, sentence.
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
