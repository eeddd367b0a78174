"""TreeComparison: compares the source's scan with the target, and chooses what to send."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine import errors
from engine.agent.target.name_rules import NameRules
from engine.agent.wire import (
    ABSENT,
    ALIKE,
    DIFFERENT,
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    OLDER,
    OTHER_KIND,
    SAME,
    UNCHANGED,
    AgentError,
    Entry,
    pack_entries,
    unpack_entries,
)
from engine.parcels.builder import ParcelBuilder
from engine.parcels.spool import Block, Spool
from engine.plan.names import NameFilter
from engine.plan.resumed import Resumed
from engine.protocol.commands import COMPARE, HASH, SYNC
from engine.protocol.digests import agree, digest_at, require_count, require_digests
from engine.protocol.lists import entries_of
from engine.protocol.messages import Done, ScanFailures, ScannedEntries
from engine.protocol.replies import ScanReply
from engine.session.session import Session
from engine.types import (
    HardLinks,
    Mode,
    OnConflict,
    Request,
    Strategy,
    Symlinks,
    display_path,
)

#: Conflicts that the error names if the policy is to fail, at most.
NAMED_CONFLICTS = 5

#: Folders at which other file systems begin, of which a plan names the first.
NAMED_MOUNTS = 20
#: Lists of entries that are sent to the target for comparison before its first reply.
ASKED_AHEAD = 8
#: Entries in one such list, at most: as many as in a message of a scan.
ASKED_AT_ONCE = 2500

#: Policy -> states of a place at the target in which an entry is sent all the same.
_SENT = {
    OnConflict.KEEP_BOTH: DIFFERENT + OLDER + OTHER_KIND,
    OnConflict.OVERWRITE: DIFFERENT + OLDER,
    OnConflict.OVERWRITE_OLDER: OLDER,
}


class Tally:
    """The figures of a comparison; all but `unchanged` are without folders."""

    def __init__(self) -> None:
        #: Entries that the target keeps, that it gets replaced, and that it cannot hold.
        self.skipped = self.replaced = self.failed = 0
        #: Places that hold something the policy forbids to replace, and the names of some.
        self.conflicts = 0
        self.conflict_names: list[str] = []
        #: The first folders of the target at which other file systems begin, and the bytes free
        #: on all of them.
        self.mounts: list[str] = []
        self.room = 0
        #: Folders that the target has with the same time.
        self.unchanged = 0
        #: Lists of entries as the target has them, which get their modes at the end.
        self.to_adjust: list[Block] = []


class TreeComparison:
    """Compares the source's entries with the target, and adds those to send to the builder.

    An entry that the target already has (same kind, size and time, or same content with
    `checksum`) is skipped as a success. In a move it is first proven by the digests of both
    ends: the source may remove only entries that this transfer has proven.
    """

    def __init__(
        self,
        session: Session,
        builder: ParcelBuilder,
        spool: Spool,
        resumed: Resumed,
        failed: Callable[[str, str, str], None],
    ) -> None:
        self._session, self._builder, self._spool, self._resumed = session, builder, spool, resumed
        self._report_failed = failed
        self._compares = False
        self._name_filter: NameFilter | None = None
        self._asked: deque[list[Entry]] = deque()
        self.tally = Tally()
        #: Pairs of lists of entries that look the same at both ends, to be proven after the scan.
        self._to_prove: list[tuple[Block, Block]] = []
        #: Lists of entries that the target already had and that are proven, with their digests.
        self.proven: list[tuple[Block, Block]] = []
        #: The scan's reply at its end; empty if the source is a file.
        self.scan = ScanReply()

    def choose(self, rules: NameRules | None) -> None:
        """Decide about every entry of the source; `rules` are the target's rules for names."""
        if rules:
            check = self._session.inbox.check
            self._name_filter = NameFilter(rules, self._fail, self._spool, check)
        known = self._session.target_found.kind != "absent" or bool(self._session.aim.single)
        compare = known and not self._session.aim.archive_name and self._session.open_target()
        self._compares = compare
        if self._session.aim.single:
            self._take([self._session.aim.single[0]], compare)
        else:
            self._take_scan(compare)
        if self._name_filter:
            for part in self._name_filter.finish():
                self._decide(part, compare)
        while self._asked:
            self._sort(self._asked.popleft())
        self._prove_all()

    def refuse_conflicts(self) -> None:
        """Raises TargetExists if the target holds something the policy forbids to replace."""
        if not self.tally.conflicts:
            return
        names = ", ".join(self.tally.conflict_names)
        more = self.tally.conflicts - len(self.tally.conflict_names)
        raise errors.TargetExists(
            f"the target holds something different: {names}" + (f" and {more} more" if more else "")
        )

    def _take_scan(self, compare: bool) -> None:
        source, inbox = self._session.source, self._session.inbox
        while True:
            message = inbox.wait_for(source, ScannedEntries, ScanFailures, Done)
            if isinstance(message, ScannedEntries):
                self._take(entries_of(message.entries), compare)
            elif isinstance(message, ScanFailures):
                for problem in message.problems:
                    if problem.code != "VANISHED" or not _forgives_vanished(self._session.request):
                        self._fail(*problem)
            elif isinstance(message.reply, ScanReply):
                self.scan = message.reply
                return

    def _fail(self, path: str, code: str, sentence: str) -> None:
        self.tally.failed += 1
        self._report_failed(path, code, sentence)

    def _take(self, entries: list[Entry], compare: bool) -> None:
        _require_kinds(entries, _not_asked_for(self._session.request))
        self._session.inbox.announced += sum(entry.size for entry in entries)
        if self._resumed.delivered:
            self._report_not_archived(entries)
            return
        missing = self._resumed.take(map(self._session.aim.at_target, entries))
        entries = list(map(self._session.aim.at_source, missing))
        for part in self._name_filter.take(entries) if self._name_filter else (entries,):
            self._decide(part, compare)

    def _report_not_archived(self, entries: list[Entry]) -> None:
        """Report entries that are not in the archive that an earlier attempt delivered."""
        for entry in entries:
            if entry.kind != FOLDER and not self._resumed.has(entry):
                shown = display_path(entry.path)
                sentence = f"{shown} is not in the delivered archive; it stays at the source"
                self._fail(entry.path, "SOURCE_CHANGED", sentence)

    def _decide(self, entries: list[Entry], compare: bool) -> None:
        if not compare:
            self._builder.add(entries)
            return
        # A name filter gives many at once: those of a folder that was not complete before.
        for at in range(0, len(entries), ASKED_AT_ONCE):
            part = entries[at : at + ASKED_AT_ONCE]
            # Sent ahead: a reply from a far host takes a round trip.
            self._ask(part, self._session.request.checksum)
            self._asked.append(part)
            if len(self._asked) > ASKED_AHEAD:
                self._sort(self._asked.popleft())

    def _sort(self, entries: list[Entry]) -> None:
        """Sort entries by the target's next reply about them."""
        reply = self._session.target.reply(COMPARE)
        states, others, failures = reply.states, reply.others, reply.failures
        require_count(len(states), len(entries))
        self.tally.mounts += reply.mounts[: NAMED_MOUNTS - len(self.tally.mounts)]
        self.tally.room += reply.room
        same: list[tuple[Entry, Entry]] = []
        alike: list[tuple[Entry, Entry]] = []
        send: list[Entry] = []
        for index, (entry, state) in enumerate(zip(entries, states, strict=True)):
            if state == UNCHANGED:
                _require_folder(entry)
                self.tally.unchanged += 1
            if index in failures:
                self._fail(entry.path, *failures[index])
            elif state == ABSENT or (entry.kind == FOLDER and state in (SAME, UNCHANGED)):
                send.append(entry)
            elif state in (SAME, ALIKE):
                if entry.kind == HARD_LINK:  # It is proven, and removed, as a file.
                    entry = entry._replace(kind=FILE, link="")
                there = self._session.aim.at_target(entry)
                there = there._replace(path=others.get(index, there.path))
                (same if state == SAME else alike).append((entry, there))
            elif self._replaces(entry, state):
                send.append(entry)
        self._builder.add(send)
        if self._session.request.checksum or self._session.request.mode is Mode.MOVE:
            alike += same
        else:
            self.tally.skipped += len(same)
            if _gives_modes(self._session.request) and same:
                blob = pack_entries(there for _, there in same)
                self.tally.to_adjust.append(self._spool.add(blob))
        if alike:
            sources, targets = zip(*alike, strict=True)
            blocks = self._spool.add(pack_entries(sources)), self._spool.add(pack_entries(targets))
            self._to_prove.append(blocks)

    def _on_vanished(self, entry: Entry) -> None:
        """Report an entry that vanished after the scan, unless an earlier attempt removes it."""
        if not _forgives_vanished(self._session.request):
            sentence = f"{display_path(entry.path)} is no longer at the source"
            self._fail(entry.path, "VANISHED", sentence)

    def still_fits(self, entries: list[Entry]) -> list[Entry]:
        """Return the staged entries whose place at the target is free; decide about the others."""
        if not self._compares or not entries:
            return entries
        self._ask(list(map(self._session.aim.at_source, entries)), by_content=False)
        states = self._session.target.reply(COMPARE).states
        require_count(len(states), len(entries))
        free: list[Entry] = []
        taken: list[Entry] = []
        for entry, state in zip(entries, states, strict=True):
            fits = state == ABSENT or (entry.kind == FOLDER and state in (SAME, UNCHANGED))
            (free if fits else taken).append(entry)
        if taken:
            self._decide(list(map(self._session.aim.at_source, taken)), compare=True)
            while self._asked:
                self._sort(self._asked.popleft())
            self._prove_all()
        return free

    def _ask(self, entries: list[Entry], by_content: bool) -> None:
        self._session.target.send(
            COMPARE,
            pack_entries(map(self._session.aim.at_target, entries)),
            keep_both=self._session.request.on_conflict is OnConflict.KEEP_BOTH,
            by_content=by_content,
            guess=self._session.is_dry,
        )

    def _replaces(self, entry: Entry, state: str) -> bool:
        """True if the policy sends an entry although its place holds something different."""
        if self._session.request.on_conflict is OnConflict.SKIP:
            self.tally.skipped += entry.kind != FOLDER
        elif entry.kind != FOLDER and state in _SENT.get(self._session.request.on_conflict, ""):
            self.tally.replaced += 1
            return True
        elif self._session.request.on_conflict is OnConflict.OVERWRITE_OLDER and state == DIFFERENT:
            self.tally.skipped += 1  # The target's file is newer, or as old.
        else:
            self.tally.conflicts += 1
            if len(self.tally.conflict_names) < NAMED_CONFLICTS:
                self.tally.conflict_names.append(display_path(entry.path))
        return False

    def _prove_all(self) -> None:
        if self._to_prove:
            # Data that only the target's memory holds must not let the source remove its own.
            self._session.target.request(SYNC)
        while self._to_prove:
            at_source, at_target = self._to_prove.pop(0)
            self._prove(self._spool.get(at_source), self._spool.get(at_target))

    def _prove(self, at_source: bytes, at_target: bytes) -> None:
        """Compare the digests of entries that look the same at both ends."""
        source, target = self._session.source, self._session.target
        source.send(HASH, at_source, at_source=True)
        target.send(HASH, at_target)
        entries = unpack_entries(at_source)
        here = require_digests(source.reply(HASH), len(entries))
        there = require_digests(target.reply(HASH), len(entries))
        if self._session.one_machine:
            for entry, one, other in zip(entries, here.ids, there.ids, strict=True):
                if one and one == other:
                    raise errors.Overlap(
                        f"{display_path(entry.path)} is the same file at both ends"
                    )
        theirs, same_at = unpack_entries(at_target), []
        proven: list[Entry] = []
        digests = bytearray()
        different: list[Entry] = []
        gone = set(here.gone)
        for index, entry in enumerate(entries):
            if index in gone:
                self._on_vanished(entry)
                continue
            digest = digest_at(here.digests, index)
            if agree(digest, digest_at(there.digests, index)):
                proven.append(entry)
                same_at.append(index)
                digests += digest
            else:
                different.append(entry)
        self.tally.skipped += len(proven)
        if proven:
            blocks = self._spool.add(pack_entries(proven)), self._spool.add(bytes(digests))
            self.proven.append(blocks)
            if _gives_modes(self._session.request):
                blob = pack_entries(theirs[index] for index in same_at)
                self.tally.to_adjust.append(self._spool.add(blob))
        if different:
            self._ask(different, by_content=False)
            states = self._session.target.reply(COMPARE).states
            require_count(len(states), len(different))
            for entry, state in zip(different, states, strict=True):
                # SAME means the same size and time, but the content differs.
                state = DIFFERENT if state in (SAME, ALIKE, ABSENT) else state
                if self._replaces(entry, state):
                    self._builder.add([entry])


def _not_asked_for(request: Request) -> str:
    """Return the kinds of links that the options have the source leave out or replace."""
    keeps = request.hard_links is HardLinks.KEEP and request.strategy is not Strategy.ARCHIVE
    return ("" if request.symlinks is Symlinks.KEEP else LINK) + ("" if keeps else HARD_LINK)


def _require_kinds(entries: list[Entry], not_asked_for: str) -> None:
    for entry in entries:
        if entry.kind in not_asked_for:
            shown = display_path(entry.path)
            raise AgentError(
                "AGENT_FAILED",
                f"protocol error at the source: {shown} came as a link, which the options exclude",
            )


def _require_folder(entry: Entry) -> None:
    if entry.kind != FOLDER:
        raise AgentError(
            "AGENT_FAILED", "protocol error at the target: the state of a folder came for a file"
        )


def _gives_modes(request: Request) -> bool:
    """Return True if a file that counts as the same gets the source's mode at the target."""
    return request.mode is Mode.MOVE or request.on_conflict is OnConflict.OVERWRITE


def _forgives_vanished(request: Request) -> bool:
    """Return True if an entry may vanish: it then counts as if the scan had not found it.

    In a later attempt of a move, the agent of an earlier attempt, whose connection broke, may
    still remove what it delivered. The command line does not count its attempts.
    """
    again = request.attempt > 1 or (request.resume and not request.on_record)
    return request.mode is Mode.MOVE and again
