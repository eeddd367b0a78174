"""Choosing what to send: the scan of the source held against what the target has."""

from __future__ import annotations

from collections.abc import Callable

from engine import errors
from engine.agent.publish import ABSENT, DIFFERENT, OTHER_KIND, SAME
from engine.agent.wire import FOLDER, Entry
from engine.plan import Planner, pack, unpack
from engine.session import Session
from engine.types import Mode, OnConflict, display_path

#: Conflicts named in the error when the policy is to fail.
NAMED_CONFLICTS = 5


class Chooser:
    """Feeds the planner with the entries that have to be sent.

    What the target already has (same kind, size and time) is skipped as a
    success; in a move it is first proven by the digests of both ends, since
    nothing may be removed that this transfer has not proven.
    """

    def __init__(
        self, session: Session, planner: Planner, failed: Callable[[str, str, str], None]
    ) -> None:
        self._session = session
        self._planner = planner
        self._tell_failed = failed
        self._policy = session.request.on_conflict
        self._conflicts: list[str] = []
        self._conflict_count = 0
        #: Packed pairs of entries that look the same, to be proven once the scan has ended.
        self._to_prove: list[tuple[bytes, bytes]] = []
        self.skipped = 0
        self.failed = 0
        #: Packed entries that were found and proven at the target, for a move.
        self.proven_blobs: list[bytes] = []

    def choose(self) -> None:
        """Scan and decide; TargetExists if the policy forbids what was found."""
        known = self._session.target_found["kind"] != "absent" or bool(self._session.single)
        compare = known and self._session.open_target()
        if self._session.single:
            self._take([self._session.single[0]], compare)
        else:
            self._scan(compare)
        if self._to_prove:
            # What is still in the target's memory only is no reason to remove a source.
            self._session.target.ask("sync")
        for ours, theirs in self._to_prove:
            self._prove(unpack(ours), unpack(theirs))
        if self._conflict_count:
            names = ", ".join(self._conflicts)
            more = self._conflict_count - len(self._conflicts)
            raise errors.TargetExists(
                f"the target holds something different: {names}"
                + (f" and {more} more" if more else "")
            )

    def _scan(self, compare: bool) -> None:
        request, source, hub = self._session.request, self._session.source, self._session.hub
        source.tell("scan", include=list(request.include), exclude=list(request.exclude))
        while True:
            message = hub.wait_for(source, "entries", "done")
            if "done" in message:
                break
            self._take([Entry(*row) for row in message["entries"]], compare)
        for path, code, sentence in message["done"]["failures"]:
            self.failed += 1
            self._tell_failed(path, code, sentence)

    def _take(self, entries: list[Entry], compare: bool) -> None:
        if not compare:
            for entry in entries:
                self._planner.add(entry)
            return
        target = self._session.target
        at_target = [self._renamed(entry) for entry in entries]
        answer = target.ask(
            "compare", entries=at_target, keep_both=self._policy is OnConflict.KEEP_BOTH
        )
        same: list[tuple[Entry, Entry]] = []
        for index, (entry, state) in enumerate(zip(entries, answer["states"], strict=True)):
            if state == ABSENT or (entry.kind == FOLDER and state == SAME):
                self._planner.add(entry)
            elif state == SAME:
                path = answer["others"].get(str(index), at_target[index].path)
                same.append((entry, entry._replace(path=path)))
            else:
                self._resolve(entry, state)
        if same and self._session.request.mode is Mode.MOVE:
            self._to_prove.append((pack(one for one, _ in same), pack(two for _, two in same)))
        else:
            self.skipped += len(same)

    def _renamed(self, entry: Entry) -> Entry:
        single = self._session.single
        return entry._replace(path=single[1]) if single else entry

    def _resolve(self, entry: Entry, state: str) -> None:
        """Decide by the policy about an entry whose place is taken by something different."""
        if self._policy is OnConflict.SKIP:
            self.skipped += entry.kind != FOLDER
        elif state in self._sent_anyway(entry):
            self._planner.add(entry)
        else:
            self._conflict_count += 1
            if len(self._conflicts) < NAMED_CONFLICTS:
                self._conflicts.append(display_path(entry.path))

    def _sent_anyway(self, entry: Entry) -> str:
        """The states in which the policy has an entry sent although its place is taken."""
        if entry.kind == FOLDER:
            return ""
        by_policy = {OnConflict.KEEP_BOTH: DIFFERENT + OTHER_KIND, OnConflict.OVERWRITE: DIFFERENT}
        return by_policy.get(self._policy, "")

    def _prove(self, ours: list[Entry], theirs: list[Entry]) -> None:
        """Compare the digests of entries that look the same at both ends."""
        at_source = self._session.source.ask("hash", entries=ours)
        at_target = self._session.target.ask("hash", entries=theirs)
        if self._session.one_machine:
            for entry, one, other in zip(ours, at_source["ids"], at_target["ids"], strict=True):
                if one and one == other:
                    raise errors.Overlap(
                        f"{display_path(entry.path)} is one and the same file at both ends"
                    )
        proven = []
        digests = zip(ours, at_source["digests"], at_target["digests"], strict=True)
        for entry, one, other in digests:
            if one and one == other:
                proven.append(entry)
            else:
                self._resolve(entry, DIFFERENT)
        self.skipped += len(proven)
        self.proven_blobs.append(pack(proven))
