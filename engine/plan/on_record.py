"""OnRecord: which staged entries, with these digests, are on the worker's own record."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable

from engine.agent.wire import HARD_LINK, LINK, Entry
from engine.observer import ProofRecord
from engine.protocol.digests import digest_at

#: Entries are kept in so many lists, sorted one by one: sorting takes memory for one of them only.
_LISTS = 256
_64_BITS = (1 << 64) - 1


class OnRecord:
    """The staged entries that the target reports, and which of them the worker's record has.

    It keeps what the target reports, not the record: a record may be long, and name an entry once
    for each attempt. An entry takes 9 bytes of memory: a 64-bit number, and whether it is on
    record. The number is Python's own hash, whose key is chosen at random as a process starts
    (unless PYTHONHASHSEED is set): a host cannot look for two entries of one number.
    """

    def __init__(self, record: ProofRecord | None) -> None:
        self._record = record
        self._reported: list[array[int]] = []
        self._found: list[bytearray] = []
        self._missing = 0

    @property
    def most(self) -> int | None:
        """How many entries earlier attempts planned, at most; None if that is not known."""
        return self._record.most() if self._record else None

    def expect(self, entries: Iterable[Entry], digests: bytes) -> None:
        """Note entries that the target reports, named as at the source, and their digests."""
        if self._record is None:
            return
        self._reported = self._reported or [array("Q") for _ in range(_LISTS)]
        for index, entry in enumerate(entries):
            number = _number(entry, digest_at(digests, index))
            self._reported[number % _LISTS].append(number)
            self._missing += 1

    def forget(self) -> None:
        """Expect nothing."""
        self._reported, self._missing = [], 0

    def look_up(self, check: Callable[[], None]) -> None:
        """Read the record until all that was expected is found; calls `check` now and then."""
        if self._record is None or not self._missing:
            return
        for at, numbers in enumerate(self._reported):
            self._reported[at] = array("Q", sorted(numbers))
        self._found = [bytearray(len(numbers)) for numbers in self._reported]
        for entries, digests in self._record.known():
            for index, entry in enumerate(entries):
                self._mark(_number(entry, digest_at(digests, index)))
            if not self._missing:
                return
            check()

    def has(self, entry: Entry, digest: bytes) -> bool:
        """True if the record has an expected entry, named as at the source, with this digest."""
        if not self._found:
            return False
        number = _number(entry, digest)
        at = self._place(number)
        return at >= 0 and bool(self._found[number % _LISTS][at])

    def _mark(self, number: int) -> None:
        at = self._place(number)
        found = self._found[number % _LISTS]
        if at >= 0 and not found[at]:
            found[at] = 1
            self._missing -= 1

    def _place(self, number: int) -> int:
        """Return the place of a number in its list; -1 if it was not expected."""
        numbers = self._reported[number % _LISTS]
        at = bisect_left(numbers, number)
        return at if at < len(numbers) and numbers[at] == number else -1


def _number(entry: Entry, digest: bytes) -> int:
    # As a manifest has an entry: `link` is where a file was read, too, if links are followed.
    link = entry.link if entry.kind in (LINK, HARD_LINK) else ""
    fields = (entry.path, entry.kind, entry.size, entry.mtime_ns, link, digest)
    return hash(fields) & _64_BITS
