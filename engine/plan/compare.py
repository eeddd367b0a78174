"""Choosing what to send: the scan of the source held against what the target has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine import errors
from engine.agent.names import NameRules
from engine.agent.publish import ABSENT, DIFFERENT, OLDER, OTHER_KIND, SAME
from engine.agent.wire import (
    DIGEST,
    FILE,
    FOLDER,
    NO_DIGEST,
    TWIN,
    Entry,
    pack_entries,
    unpack_entries,
)
from engine.held import Held
from engine.hub import Message
from engine.naming import NameGate
from engine.plan import Planner
from engine.session import Session
from engine.spool import Block, Spool
from engine.types import Mode, OnConflict, display_path

#: Conflicts named in the error when the policy is to fail.
NAMED_CONFLICTS = 5

#: Lists of entries that the target may be asked about before its first answer.
ASKED_AHEAD = 8

#: States of a place at the target in which a policy has an entry sent all the same.
_SENT = {
    OnConflict.KEEP_BOTH: DIFFERENT + OLDER + OTHER_KIND,
    OnConflict.OVERWRITE: DIFFERENT + OLDER,
    OnConflict.OVERWRITE_OLDER: OLDER,
}


class Chooser:
    """Feeds the planner with the entries that have to be sent.

    What the target already has (same kind, size and time, or same content if
    `checksum` is asked for) is skipped as a success; in a move it is first
    proven by the digests of both ends, since nothing may be removed that this
    transfer has not proven.
    """

    def __init__(
        self,
        session: Session,
        planner: Planner,
        spool: Spool,
        held: Held,
        failed: Callable[[str, str, str], None],
    ) -> None:
        self._session, self._planner, self._spool, self._held = session, planner, spool, held
        self._tell_failed = failed
        self._policy = session.request.on_conflict
        self._checksum = session.request.checksum
        self._compares = False
        self._gate: NameGate | None = None
        self._asked: deque[list[Entry]] = deque()
        self.conflict_names: list[str] = []
        #: Pairs of lists of entries that look the same, to be proven once the scan has ended.
        self._to_prove: list[tuple[Block, Block]] = []
        self.conflict_count = 0
        self.replaced = 0
        self.skipped = 0
        self.failed = 0
        #: Lists of entries that were found and proven at the target, for a move.
        self.proven: list[Block] = []
        #: The list with the source folder's own entry; nothing if the source is a file.
        self.top = b""
        #: What the scan said at its end: `hard_links`, `links_skipped`.
        self.scan_said: Message = {"hard_links": 0, "links_skipped": 0}

    def choose(self, rules: NameRules | None) -> None:
        """Decide about every entry of the source; `rules` are those of names at the target."""
        if rules:
            self._gate = NameGate(rules, self._fail)
        known = self._session.target_found["kind"] != "absent" or bool(self._session.single)
        compare = known and not self._session.archive_name and self._session.open_target()
        self._compares = compare
        if self._session.single:
            self._take([self._session.single[0]], compare)
        else:
            self._take_scan(compare)
        if self._gate:
            self._decide(self._gate.finish(), compare)
        while self._asked:
            self._sort(self._asked.popleft())
        self._prove_all()

    def refuse_conflicts(self) -> None:
        """TargetExists if the policy forbids what was found at the target."""
        if not self.conflict_count:
            return
        names = ", ".join(self.conflict_names)
        more = self.conflict_count - len(self.conflict_names)
        raise errors.TargetExists(
            f"the target holds something different: {names}" + (f" and {more} more" if more else "")
        )

    def _take_scan(self, compare: bool) -> None:
        source, hub = self._session.source, self._session.hub
        while True:
            message = hub.wait_for(source, "entries", "failures", "done")
            if "done" in message:
                self.scan_said = message["done"]
                self.top = message["blob"]
                return
            for path, code, sentence in message.get("failures", ()):
                self._fail(path, code, sentence)
            self._take(unpack_entries(message["blob"]) if "entries" in message else [], compare)

    def _fail(self, path: str, code: str, sentence: str) -> None:
        self.failed += 1
        self._tell_failed(path, code, sentence)

    def _take(self, entries: list[Entry], compare: bool) -> None:
        if self._held.delivered:
            self._left_out(entries)
            return
        missing = self._held.take(map(self._session.at_target, entries))
        entries = list(map(self._session.at_source, missing))
        self._decide(self._gate.take(entries) if self._gate else entries, compare)

    def _left_out(self, entries: list[Entry]) -> None:
        """Name what the archive does not hold that an earlier attempt has delivered."""
        for entry in entries:
            if entry.kind != FOLDER and not self._held.has(entry):
                sentence = f"{display_path(entry.path)} is not in the archive, and stays"
                self._fail(entry.path, "SOURCE_CHANGED", sentence)

    def _decide(self, entries: list[Entry], compare: bool) -> None:
        if not compare:
            self._planner.add(entries)
        elif entries:
            # Asked ahead, since an answer from far takes its time.
            self._ask(entries, self._checksum)
            self._asked.append(entries)
            if len(self._asked) > ASKED_AHEAD:
                self._sort(self._asked.popleft())

    def _sort(self, entries: list[Entry]) -> None:
        """Sort entries by what the target has said about them."""
        answer = self._session.target.answer("compare")
        states, others = answer["states"], answer["others"]
        same: list[tuple[Entry, Entry]] = []
        send: list[Entry] = []
        for index, (entry, state) in enumerate(zip(entries, states, strict=True)):
            if state == ABSENT or (entry.kind == FOLDER and state == SAME):
                send.append(entry)
            elif state == SAME:
                if entry.kind == TWIN:  # It is proven, and removed, as the file that it is.
                    entry = entry._replace(kind=FILE, link="")
                there = self._session.at_target(entry)
                same.append((entry, there._replace(path=others.get(str(index), there.path))))
            elif self._replaces(entry, state):
                send.append(entry)
        self._planner.add(send)
        if same and (self._checksum or self._session.request.mode is Mode.MOVE):
            ours, theirs = zip(*same, strict=True)
            blocks = self._spool.add(pack_entries(ours)), self._spool.add(pack_entries(theirs))
            self._to_prove.append(blocks)
        else:
            self.skipped += len(same)

    def _gone(self, entry: Entry) -> None:
        """The source has an entry no more that the scan has found there.

        In a move that is tried again it may be an earlier attempt, whose line was cut, that
        still removes what it has delivered: then it is as if the scan had come later.
        """
        request = self._session.request
        if request.mode is not Mode.MOVE or request.attempt == 1:
            self._fail(entry.path, "VANISHED", f"{display_path(entry.path)} is not there any more")

    def still_fits(self, entries: list[Entry]) -> list[Entry]:
        """What has arrived and whose place at the target is free; the rest is chosen anew."""
        if not self._compares or not entries:
            return entries
        self._ask(list(map(self._session.at_source, entries)), by_content=False)
        states = self._session.target.answer("compare")["states"]
        free: list[Entry] = []
        taken: list[Entry] = []
        for entry, state in zip(entries, states, strict=True):
            fits = state == ABSENT or (entry.kind == FOLDER and state == SAME)
            (free if fits else taken).append(entry)
        if taken:
            self._decide(list(map(self._session.at_source, taken)), compare=True)
            while self._asked:
                self._sort(self._asked.popleft())
            self._prove_all()
        return free

    def _ask(self, entries: list[Entry], by_content: bool) -> None:
        self._session.target.tell(
            "compare",
            pack_entries(map(self._session.at_target, entries)),
            keep_both=self._policy is OnConflict.KEEP_BOTH,
            by_content=by_content,
        )

    def _replaces(self, entry: Entry, state: str) -> bool:
        """Whether the policy has an entry sent whose place is taken by something different."""
        if self._policy is OnConflict.SKIP:
            self.skipped += entry.kind != FOLDER
        elif entry.kind != FOLDER and state in _SENT.get(self._policy, ""):
            self.replaced += 1
            return True
        elif self._policy is OnConflict.OVERWRITE_OLDER and state == DIFFERENT:
            self.skipped += 1  # What is there is newer, or as old.
        else:
            self.conflict_count += 1
            if len(self.conflict_names) < NAMED_CONFLICTS:
                self.conflict_names.append(display_path(entry.path))
        return False

    def _prove_all(self) -> None:
        if self._to_prove:
            # What is still in the target's memory only is no reason to remove a source.
            self._session.target.ask("sync")
        while self._to_prove:
            ours, theirs = self._to_prove.pop(0)
            self._prove(self._spool.get(ours), self._spool.get(theirs))

    def _prove(self, ours: bytes, theirs: bytes) -> None:
        """Compare the digests of entries that look the same at both ends."""
        source, target = self._session.source, self._session.target
        source.tell("hash", ours, at_source=True)
        target.tell("hash", theirs)
        here, there = source.answer("hash"), target.answer("hash")
        entries = unpack_entries(ours)
        if self._session.one_machine:
            for entry, one, other in zip(entries, here["ids"], there["ids"], strict=True):
                if one and one == other:
                    raise errors.Overlap(
                        f"{display_path(entry.path)} is one and the same file at both ends"
                    )
        proven: list[Entry] = []
        different: list[Entry] = []
        gone = set(here["gone"])
        for index, entry in enumerate(entries):
            if index in gone:
                self._gone(entry)
                continue
            digest = here["blob"][index * DIGEST : (index + 1) * DIGEST]
            other = there["blob"][index * DIGEST : (index + 1) * DIGEST]
            (proven if digest == other != NO_DIGEST else different).append(entry)
        self.skipped += len(proven)
        if proven:
            self.proven.append(self._spool.add(pack_entries(proven)))
        if different:
            self._ask(different, by_content=False)
            states = self._session.target.answer("compare")["states"]
            for entry, state in zip(different, states, strict=True):
                # Alike as far as size and time tell, and yet it is not.
                if self._replaces(entry, DIFFERENT if state in (SAME, ABSENT) else state):
                    self._planner.add([entry])
