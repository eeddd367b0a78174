"""NameFilter: keeps entries with names that the target cannot hold out of the plan."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator

from engine import errors
from engine.agent.target.name_rules import NameRules
from engine.agent.wire import FOLDER, LIST_BYTES, Entry, pack_entries, unpack_entries
from engine.parcels.spool import Block, Spool
from engine.plan.name_check import NameCheck
from engine.protocol.lists import weight_of
from engine.types import display_path

#: Called with path, code and sentence of an entry that is not sent.
Failed = Callable[[str, str, str], None]

#: Entries of one folder that wait in memory until it is complete; further ones are in the spool.
IN_MEMORY = 5000
#: Names of a folder with so many entries that may become one, at most: they are compared in memory.
MOST_ALIKE = 20_000
#: Folders that cannot be made at the target, at most; each takes some 70 bytes of memory.
MOST_REFUSED = 100_000
#: Numbers are kept in so many lists, sorted one by one: sorting takes memory for one of them only.
_LISTS = 256


class NameFilter:
    """Passes on entries whose names the target can hold; reports the others to `failed`.

    Entries must come in the scan's order: a folder's entries together. The filter keeps
    them until the folder is complete: only then is the first of two names known to collide. Of a
    large folder `spool` has the entries, and memory 8 bytes for each. `check` is called now and
    then meanwhile.
    """

    def __init__(
        self, rules: NameRules, failed: Failed, spool: Spool, check: Callable[[], None]
    ) -> None:
        self._rules, self._failed, self._spool = NameCheck(rules), failed, spool
        self._check = check
        self._folder = ""
        self._kept_back: list[Entry] = []
        self._weight = 0
        #: The present folder's entries in the spool, and the numbers of their names.
        self._blocks: list[Block] = []
        self._numbers = _Numbers()
        #: Hashes of the paths of folders that are not made. Another path with one of them would be
        #: refused by mistake; of 100,000 refused folders and 10 million paths, once in 10 million
        #: transfers.
        self._refused_folders: set[int] = set()

    def take(self, entries: Iterable[Entry]) -> Iterator[list[Entry]]:
        """Take entries in; yield those that are known to be fine by now."""
        fine: list[Entry] = []
        for entry in entries:
            folder = entry.path.rpartition("/")[0]
            if folder != self._folder:
                if self._blocks:
                    yield fine
                    yield from self._spooled()
                    fine = []
                else:
                    fine += self._complete()
                self._folder = folder
            self._kept_back.append(entry)
            self._weight += weight_of(entry)
            if len(self._kept_back) >= IN_MEMORY or self._weight >= LIST_BYTES:
                if self._rules.compares:
                    self._put_aside()
                else:
                    fine += self._complete()
        yield fine

    def finish(self) -> Iterator[list[Entry]]:
        """Yield the last folder's fine entries."""
        if self._blocks:
            yield from self._spooled()
        else:
            yield self._complete()

    def _complete(self) -> list[Entry]:
        """Return the fine ones of the entries that wait in memory, which are a whole folder's."""
        entries = self._waiting()
        bad = set()
        for place, (code, sentence) in self._rules.problems(list(map(_name, entries))):
            bad.add(place)
            self._refuse(entries[place], code, sentence)
        return (
            [entry for place, entry in enumerate(entries) if place not in bad] if bad else entries
        )

    def _put_aside(self) -> None:
        """Put the entries that wait in memory into the spool, and keep the numbers of their names.

        Those that are impossible by themselves are refused at once.
        """
        fine = []
        for entry in self._waiting():
            name = _name(entry)
            if problem := self._rules.alone(name):
                self._refuse(entry, *problem)
            else:
                fine.append(entry)
                self._numbers.add(self._rules.number(name))
        self._blocks.append(self._spool.add(pack_entries(fine)))

    def _spooled(self) -> Iterator[list[Entry]]:
        """Yield the fine ones of a folder's entries in the spool."""
        self._put_aside()
        blocks, self._blocks = self._blocks, []
        numbers, self._numbers = self._numbers, _Numbers()
        bad = self._colliding(blocks, numbers.repeated())
        start = 0
        for block in blocks:
            entries = unpack_entries(self._spool.get(block))
            yield [entry for place, entry in enumerate(entries, start) if place not in bad]
            start += len(entries)

    def _colliding(self, blocks: list[Block], repeated: set[int]) -> set[int]:
        """Refuse the entries in the spool whose names become one; return their places."""
        alike: list[Entry] = []
        places: list[int] = []
        start = 0
        for block in blocks if repeated else ():
            entries = unpack_entries(self._spool.get(block))
            for place, entry in enumerate(entries, start):
                if self._rules.number(_name(entry)) in repeated:
                    alike.append(entry._replace(link="", meta=b""))
                    places.append(place)
            if len(alike) > MOST_ALIKE:
                _refuse_all(self._folder)
            start += len(entries)
            self._check()
        bad = set()
        for at, (code, sentence) in self._rules.problems(list(map(_name, alike))):
            bad.add(places[at])
            self._refuse(alike[at], code, sentence)
        return bad

    def _waiting(self) -> list[Entry]:
        """Take the entries that wait in memory; none if their folder is refused."""
        entries, self._kept_back = self._kept_back, []
        self._weight = 0
        if self._refused_folders and self._below_refused(self._folder):
            for entry in entries:
                sentence = "its folder cannot be made at the target"
                self._failed(entry.path, "NAME_COLLISION", sentence)
            return []
        return entries

    def _refuse(self, entry: Entry, code: str, sentence: str) -> None:
        if entry.kind == FOLDER:
            self._refused_folders.add(hash(entry.path))
            if len(self._refused_folders) > MOST_REFUSED:
                raise errors.BadRequest(
                    f"more than {MOST_REFUSED:,} folders have names that the target cannot hold; "
                    f"the last one: {sentence}"
                )
        self._failed(entry.path, code, sentence)

    def _below_refused(self, folder: str) -> bool:
        while folder:
            if hash(folder) in self._refused_folders:
                return True
            folder = folder.rpartition("/")[0]
        return False


class _Numbers:
    """64-bit numbers, 8 bytes each, and which of them are there more than once."""

    def __init__(self) -> None:
        self._lists: list[array[int]] = []

    def add(self, number: int) -> None:
        """Add a number."""
        self._lists = self._lists or [array("Q") for _ in range(_LISTS)]
        self._lists[number % _LISTS].append(number)

    def repeated(self) -> set[int]:
        """Return the numbers that were added more than once; MOST_ALIKE of them or a few more."""
        found: set[int] = set()
        for numbers in self._lists:
            before = -1
            for number in sorted(numbers):
                if number == before:
                    found.add(number)
                before = number
            if len(found) > MOST_ALIKE:
                break
        return found


def _refuse_all(folder: str) -> None:
    where = f"the folder {display_path(folder)}" if folder else "the source"
    raise errors.BadRequest(
        f"{where} has more than {MOST_ALIKE:,} names that would be one with others at the target, "
        "which does not tell upper from lower case or composed from decomposed letters: rename "
        "them, or exclude the folder"
    )


def _name(entry: Entry) -> bytes:
    return os.fsencode(entry.path.rpartition("/")[2])
