"""Giving published folders their mode, time and attributes."""

from __future__ import annotations

import errno
import os
import stat

from engine.agent.target.journal import Journal
from engine.agent.target.publish.had_before import FoldersBefore
from engine.agent.target.publish.opened_folders import readable
from engine.agent.target.publish.refused import Refused
from engine.agent.target.staged_files import WriteOptions
from engine.agent.tree import Tree
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import FOLDER, AgentError, Entry, explain
from engine.agent.write_access import set_mode

if TYPE_CHECKING:
    from typing import Iterator

#: The most problems that are reported one by one.
NAMED = 100
#: The bits that let others write to a folder, and so rename what is in it.
_WIDE = stat.S_IWGRP | stat.S_IWOTH


class FolderFinisher:
    """Finishes the folders that the journal names; those of `before` keep their mode and ACL.

    `problems` lists the folders that refused, as path, code, sentence: a folder that was there
    before may belong to another user.
    """

    def __init__(
        self, target: Tree, options: WriteOptions, opened: dict[str, int], before: FoldersBefore
    ) -> None:
        self._target, self._options, self._opened = target, options, opened
        self._before = before
        self.problems: list[list[str]] = []
        self.problem_count = 0

    def finish(self, journal: Journal, refused: Refused) -> None:
        """Finish every folder of the journal that was not refused its place.

        Then come those that lock this user out, deepest first. Those to which other users may
        write get that right last: with it such a user can replace a folder inside.
        """
        wide, closed = False, []
        for entry in self._folders(journal, refused):
            if entry.mode & stat.S_IRWXU != stat.S_IRWXU:
                closed.append(entry)
            else:
                wide = wide or bool(entry.mode & _WIDE)
                self.give(entry._replace(mode=entry.mode & ~_WIDE))
        for entry in sorted(closed, key=lambda entry: -entry.path.count("/")):
            self.give(entry)
        for entry in self._folders(journal, refused) if wide else ():
            if entry.mode & _WIDE and entry.mode & stat.S_IRWXU == stat.S_IRWXU:
                self._widen(entry)

    @staticmethod
    def _folders(journal: Journal, refused: Refused) -> Iterator[Entry]:
        """Yield the folders of the journal once each; one comes after what is in it, mostly."""
        done: set[int] = set()
        places = [at for at, body in journal.records() if "parcel" in body or "void" in body]
        for at in reversed(places):  # A later record overrules an earlier one.
            body = journal.record(at)
            done.update(hash(path) for path in body.get("void", ()))
            found = Journal.proven(body, FOLDER) if "parcel" in body else ()
            for entry, _ in reversed(list(found)):
                if hash(entry.path) not in done and not refused.reason(entry.path):
                    done.add(hash(entry.path))
                    yield entry

    def _widen(self, entry: Entry) -> None:
        """Let others write to a folder that has the rest of its mode already."""
        if entry.path in self._before:
            return
        try:
            fd = self._target.folder(entry.path)
            found, bits = os.fstat(fd), self._options.mode_bits
            narrow = entry.mode & bits & ~_WIDE
            if found.st_mode & bits & ~stat.S_ISGID == narrow & ~stat.S_ISGID:
                set_mode(fd, stat.S_IMODE(found.st_mode) | entry.mode & _WIDE)
        except OSError as error:
            self._keep(explain(error, entry.path), entry)
        except AgentError as error:
            self._keep(error, entry)

    def give(self, entry: Entry) -> None:
        """Give a folder of the target its attributes, mode and time; keep a problem.

        An opened folder has its final mode then, and is not put back, unless it was there before.
        """
        keeps = entry.path in self._before
        try:
            self._before.placed.require(self._target, entry.path)
            fd = self._target.folder(entry.path)
            try:
                give(fd, entry, self._options, keeps)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                with readable(fd, keeps) as another:  # The descriptor may only be passed through.
                    give(another, entry, self._options, keeps)
            if not keeps:
                self._opened.pop(entry.path, None)
        except OSError as error:
            self._keep(explain(error, entry.path), entry)
        except AgentError as error:
            self._keep(error, entry)

    def _keep(self, problem: AgentError, entry: Entry) -> None:
        self.problem_count += 1
        if len(self.problems) < NAMED:
            self.problems.append([entry.path or ".", problem.code, str(problem)])


def give(fd: int, entry: Entry, options: WriteOptions, keeps: bool = False) -> None:
    """Give an open entry its attributes, mode and time; with `keeps`, no mode and ACL.

    A folder that was made in one with the set-group-ID bit has that bit by itself, and keeps it.
    """
    refused = []
    if entry.meta and options.xattrs:
        from engine.agent import xattrs  # The host compiles it only for a transfer that asks.

        refused = xattrs.apply(fd, entry.meta, acls=not keeps)
    if not keeps:
        inherited = os.fstat(fd).st_mode & stat.S_ISGID if entry.kind == FOLDER else 0
        os.fchmod(fd, entry.mode & options.mode_bits | inherited)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    if refused:
        raise AgentError(
            "XATTRS_NOT_KEPT", f"{entry.path} did not take the attributes {', '.join(refused)}"
        )
