"""Proofs: keeps which entries are proven; publishing and the removal at the source rely on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from engine import errors
from engine.agent.typed import NamedTuple
from engine.agent.wire import DIGEST, FOLDER, Entry, count_of, pack_entries, unpack_entries
from engine.parcels.builder import Parcel
from engine.parcels.spool import Block, Spool
from engine.proof.reporter import Reporter
from engine.protocol.commands import ADJUST, INSIDE, REMOVE, REMOVE_FOLDERS, UNPUBLISHED
from engine.protocol.fields import EntryProblem
from engine.protocol.lists import in_parts
from engine.session.session import Session
from engine.types import ParcelState

#: REMOVE commands that are sent to a source before its first reply.
ASKED_AHEAD = 4
#: Folders that could not be removed of which the reasons are kept, at most.
NAMED_PROBLEMS = 100


class ProvenEntries(NamedTuple):
    """Entries of a parcel whose digests agreed at both ends, and those digests."""

    parcel: Parcel
    entries: Block
    digests: Block


class Proofs:
    """Collects a carrier's reports: keeps the proven entries, and passes the news to `reporter`."""

    def __init__(self, session: Session, spool: Spool, reporter: Reporter) -> None:
        self._session, self._spool, self._reporter = session, spool, reporter
        self._proven: list[ProvenEntries] = []
        #: Number of proven entries, without folders, and their bytes.
        self.files = self.bytes = 0
        #: Number of entries, without folders, that were reported to `failed`.
        self.undelivered = 0

    def started(self, parcel: Parcel) -> None:
        """Report that a parcel is on its way."""
        self._reporter.report_parcel(parcel, ParcelState.SENDING)

    def failed(self, path: str, code: str, message: str) -> None:
        """Report an entry that could not be delivered."""
        self._reporter.fail(path, code, message)

    def moved(self, done_bytes: int, done_files: int) -> None:
        """Report the counters."""
        self._reporter.moved(done_bytes, done_files)

    def warned(self, code: str, message: str) -> None:
        """Report a problem that does not stop the transfer."""
        self._reporter.warned(code, message)

    def verified(
        self,
        parcel: Parcel,
        entries: bytes,
        digests: bytes,
        count: tuple[int, int],
        on_record: bool = False,
    ) -> None:
        """Record proven entries of a parcel; `count` are their files and bytes.

        A parcel of slices has no entries here until the file is whole. With `on_record`, the
        caller's record has them already.
        """
        manifest = None
        if entries:
            self.files += count[0]
            self.bytes += count[1]
            block = self._spool.add(entries)
            self._proven.append(ProvenEntries(parcel, block, self._spool.add(digests)))
            if self._reporter.record and not on_record:
                self._reporter.record.add(entries, digests)
            if self._reporter.wants_manifests:
                from engine.proof import manifest as manifests  # Only where they are wanted.

                pairs = (
                    (entry, digests[at * DIGEST : (at + 1) * DIGEST])
                    for at, entry in enumerate(unpack_entries(entries))
                )
                manifest = manifests.write(pairs)
        self._reporter.report_parcel(parcel, ParcelState.VERIFIED, manifest)

    def report_state(self, state: ParcelState) -> None:
        """Report that all parcels have reached a state."""
        for parcel in {proven.parcel.number: proven.parcel for proven in self._proven}.values():
            self._reporter.report_parcel(parcel, state)

    def record_archive(self) -> None:
        """Have the target record the archive's entries in its journal."""
        for proven in self._proven:
            entries = self._spool.get(proven.entries)
            self._session.target.request(
                INSIDE,
                entries + self._spool.get(proven.digests),
                size=len(entries),
            )

    def leave_out_unpublished(self) -> None:
        """Report what the target could not publish; it is not delivered, so it is not removed."""
        for at, proven in enumerate(self._proven):
            entries = unpack_entries(self._spool.get(proven.entries))
            refused = self._ask_unpublished(entries)
            if not refused:
                continue
            digests = self._spool.get(proven.digests)
            delivered, theirs = [], bytearray()
            for number, entry in enumerate(entries):
                problem = refused.get(self._session.aim.at_target(entry).path)
                if problem is None:
                    delivered.append(entry)
                    theirs += digests[number * DIGEST : (number + 1) * DIGEST]
                    continue
                self._reporter.fail(entry.path, problem.code, problem.sentence)
                self.files -= entry.kind != FOLDER
                self.bytes -= entry.size
            self._proven[at] = ProvenEntries(
                proven.parcel,
                self._spool.add(pack_entries(delivered)),
                self._spool.add(bytes(theirs)),
            )

    def _ask_unpublished(self, entries: list[Entry]) -> dict[str, EntryProblem]:
        """Which entries the target could not publish, by their paths there."""
        refused: dict[str, EntryProblem] = {}
        asked = pack_entries(map(self._session.aim.at_target, entries))
        for part in in_parts(asked):
            kept = self._session.target.request(UNPUBLISHED, part).kept
            paths = {entry.path for entry in unpack_entries(part)}
            if not paths.issuperset(problem.path for problem in kept):
                raise errors.AgentFailed(
                    "protocol error at the target: the answer is about entries that were not asked"
                )
            refused.update((problem.path, problem) for problem in kept)
        return refused

    def adjust(self, there: Iterable[Block]) -> None:
        """Have the target give files that it had already the modes of the source's."""
        problems: list[EntryProblem] = []
        number = 0
        bits = self._session.request.mode_bits
        for part in (part for block in there for part in in_parts(self._spool.get(block))):
            self._session.inbox.check()
            reply = self._session.target.request(ADJUST, part, mode_bits=bits)
            number += reply.problem_count
            problems = (problems + list(reply.problems))[:NAMED_PROBLEMS]
        self._reporter.warn(
            "MODE_NOT_SET", "files that the target had kept another mode", problems, number
        )

    def pairs(self) -> Iterator[tuple[Block, Block]]:
        """Yield lists of the proven entries, in the order of their parcels, and their digests."""
        for proven in sorted(self._proven, key=lambda proven: proven.parcel.number):
            yield proven.entries, proven.digests

    def remove_source(self, there: Iterable[Block]) -> int:
        """Remove proven entries at the source, and `there`, which the target had; return how many.

        Raises what the checkpoint raises: a replaced worker removes nothing more.
        """
        in_order = sorted(self._proven, key=lambda proven: proven.parcel.number)
        blocks = [proven.entries for proven in in_order] + list(there)
        source, removed, entry_count = self._session.source, 0, 0
        asked: deque[int] = deque()
        waiting = (part for block in blocks for part in in_parts(self._spool.get(block)))
        entries = next(waiting, None)
        while entries is not None or asked:
            if entries is not None and len(asked) < ASKED_AHEAD:
                # A worker that was frozen and replaced meanwhile stops here, and removes nothing.
                self._session.inbox.check()
                source.send(REMOVE, entries)
                asked.append(count_of(entries))
                entry_count += asked[-1]
                entries = next(waiting, None)
                continue
            reply = source.reply(REMOVE)
            _require_at_most(asked.popleft(), reply.removed + len(reply.kept))
            removed += reply.removed
            for path, code, message in reply.kept:
                self._reporter.fail(path, code, message)
        self._remove_folders(blocks, entry_count)
        return removed

    def _remove_folders(self, blocks: list[Block], entry_count: int) -> None:
        """Remove the folders that are now empty, from the last on, which is the deepest.

        Folders of an earlier attempt come first in the list, whatever their depth: so this
        repeats as long as it removes some. Raises AgentFailed if those are more than `entry_count`.
        """
        went, full, gone = 1, 1, 0
        while went and full:
            went = full = number = 0
            problems: list[EntryProblem] = []
            for entries in self._parts_from_the_last(blocks):
                reply = self._session.source.request(REMOVE_FOLDERS, entries)
                found = reply.removed + reply.full + len(reply.problems)
                _require_at_most(count_of(entries), found)
                went, full = went + reply.removed, full + reply.full
                number += len(reply.problems)
                problems = (problems + list(reply.problems))[:NAMED_PROBLEMS]
            gone += went
            _require_at_most(entry_count, gone)
        self._reporter.warn(
            "FOLDER_NOT_REMOVED", "empty folders could not be removed", problems, number
        )

    def _parts_from_the_last(self, blocks: list[Block]) -> Iterator[bytes]:
        for block in reversed(blocks):
            yield from reversed(list(in_parts(self._spool.get(block))))


def _require_at_most(most: int, found: int) -> None:
    if found > most:
        raise errors.AgentFailed(
            f"protocol error at the source: more entries were removed or kept than asked: {found}"
        )
