"""Giving published folders their mode, time and attributes."""

from __future__ import annotations

import os
import stat

from engine.agent.journal import Journal
from engine.agent.receiver import Ways
from engine.agent.tree import Tree
from engine.agent.wire import FOLDER, AgentError, Entry, explain

#: Problems that are told one by one.
NAMED = 100


class Finisher:
    """Finishes the folders that the journal names.

    `problems` are those that would not take it, as path, code, sentence: a
    folder that was there before may belong to somebody else.
    """

    def __init__(self, target: Tree, ways: Ways) -> None:
        self._target, self._ways = target, ways
        self._closed: list[Entry] = []
        self.problems: list[list[str]] = []
        self.problem_count = 0

    def finish(self, journal: Journal) -> None:
        """Finish every folder of the journal; those that shut us out come last, deepest first."""
        done: set[int] = set()
        places = [at for at, body in journal.records() if "parcel" in body or "void" in body]
        for at in reversed(places):  # What was said later holds.
            body = journal.record(at)
            done.update(hash(path) for path in body.get("void", ()))
            for entry, _ in Journal.proven(body, FOLDER) if "parcel" in body else ():
                if hash(entry.path) in done:
                    continue
                done.add(hash(entry.path))
                if entry.mode & stat.S_IRWXU == stat.S_IRWXU:
                    self.give(entry)
                else:
                    self._closed.append(entry)
        for entry in sorted(self._closed, key=lambda entry: -entry.path.count("/")):
            self.give(entry)

    def give(self, entry: Entry) -> None:
        """Give a folder of the target what is its; a problem is kept."""
        try:
            give(self._target.folder(entry.path), entry, self._ways)
        except OSError as error:
            self._tell(explain(error, entry.path), entry)
        except AgentError as error:
            self._tell(error, entry)

    def _tell(self, problem: AgentError, entry: Entry) -> None:
        self.problem_count += 1
        if len(self.problems) < NAMED:
            self.problems.append([entry.path or ".", problem.code, str(problem)])


def give(fd: int, entry: Entry, ways: Ways) -> None:
    """Give an open folder the entry's attributes, mode and time."""
    refused = []
    if entry.meta and ways.xattrs:
        from engine.agent import xattrs  # Compiled on the host only where it is asked for.

        refused = xattrs.apply(fd, entry.meta)
    os.fchmod(fd, entry.mode & ways.mode_bits)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    if refused:
        raise AgentError("XATTRS_NOT_KEPT", f"{entry.path}: {', '.join(refused)}")
