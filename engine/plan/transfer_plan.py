"""Planning: what has to be sent, what has arrived already, and how many streams to use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from engine import errors
from engine.agent.names import NameRules
from engine.agent.wire import DIGEST, Entry, pack_entries
from engine.choose import Chooser
from engine.held import Held
from engine.plan import Planner
from engine.proof import Proofs
from engine.session import Session
from engine.spool import Spool
from engine.types import Verify
from engine.watch import Watch

if TYPE_CHECKING:
    from engine.errand import Lender

#: Entries that cannot be carried, as many as a plan names.
NAMED = 20
#: One OpenSSH channel moves at most about this much (bytes) per round trip.
CHANNEL_WINDOW = 2 << 20
#: What several channels together should be able to move (bytes per second).
WANTED_RATE = 320 << 20
#: After so many attempts parcels are small: what is under way when a line breaks is sent again.
FINE_AFTER = 2
#: A round trip (seconds) below this does not hold a channel back.
NEAR = 0.004
#: A further stream is opened for every so many bytes, at least.
WORTH_A_STREAM = 16 << 20
#: So many bytes between machines with so many processors use several streams in any case.
MANY_CORES, MANY_BYTES = 8, 4 << 30


class Planning:
    """The plan of one transfer, and the figures that it rests on."""

    def __init__(
        self,
        session: Session,
        spool: Spool,
        watch: Watch,
        proofs: Proofs,
        lender: Lender | None = None,
    ) -> None:
        self._session, self._watch, self._proofs = session, watch, proofs
        self._held = Held(spool)
        fine = session.request.attempt > FINE_AFTER
        self.planner = Planner(session.request.strategy, spool, fine)
        self.chooser = Chooser(session, self.planner, spool, self._held, watch.fail)
        self.streams = 1
        self._lender = lender
        #: Entries (not folders) and bytes that an earlier attempt brought; files in part included.
        self.resumed = self.bytes_held = self.bytes_resumed = 0
        self._stale: list[Entry] = []

    def plan(self, dry: bool) -> None:
        """Make the plan; with `dry` nothing is changed at the target."""
        session = self._session
        rules = self._rules(dry)
        self.chooser.choose(rules)
        if self.delivered:
            for entries, digests in self._held.all():
                self._is_proven(entries, digests)
            self.bytes_resumed = self.bytes_held
            return
        self._held.sort(self._found, self._stale.extend)
        for path in self._held.parts.keys() - self._wanted_parts():
            self._stale.append(Entry(path, "f", 0, 0, 0, 0))
        if self._stale:
            session.target.ask("discard", pack_entries(self._stale))
        self.planner.finish()
        self.streams = self._choose_streams()
        if self.streams > 1:
            self.planner.put_largest_first()
        self.bytes_resumed = self.bytes_held
        helpers = 0
        if self._lender and not session.archive_name and not dry:
            helpers = self._lender.helpers(self.planner.bytes, self.streams)
        self.bytes_resumed += self.planner.plan_large(self.streams, self._part, helpers)
        self._tell_links()

    @property
    def delivered(self) -> bool:
        """Whether an earlier attempt has delivered all of it, in one archive."""
        return bool(self._held.delivered)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to send, to publish or to clear away."""
        if self.delivered:
            return False
        staged = self._session.staged
        return bool(self.planner.parcels or self.planner.last_parcels or self.resumed or staged)

    def refuse(self) -> None:
        """Raise what stands in the way of the plan: conflicts, or a target that is too small."""
        self.chooser.refuse_conflicts()
        found, need = self._session.target_found, self.planner.bytes
        need -= self.bytes_resumed - self.bytes_held
        if need > found["free"]:
            raise errors.NoSpace(
                f"the target has {found['free']:,} bytes free, the transfer needs {need:,}"
            )
        entries = 1 if self._session.archive_name else self.planner.counts.total()
        if 0 <= found["free_inodes"] < entries:
            raise errors.NoSpace(
                f"the target has {found['free_inodes']:,} inodes free, "
                f"the transfer needs {entries:,}"
            )

    def summary(self) -> dict[str, Any]:
        """The plan in figures, for people and for the record; sizes in bytes."""
        chooser, found = self.chooser, self._session.target_found
        return {
            **self.planner.summary(),
            "skipped": chooser.skipped,
            "replaced": chooser.replaced,
            "conflicts": chooser.conflict_count,
            "conflict_names": chooser.conflict_names,
            "not_possible": chooser.failed,
            "failures": [failure._asdict() for failure in self._watch.failures[:NAMED]],
            "hard_links": chooser.scan_said["hard_links"],
            "links_skipped": chooser.scan_said["links_skipped"],
            "resumed": self.resumed,
            "bytes_resumed": self.bytes_resumed,
            "streams": self.streams,
            "one_file": bool(self._session.single),
            "round_trip_ms": round(self._session.round_trip * 1000, 1),
            "free_bytes": found["free"],
            "free_inodes": found["free_inodes"],
        }

    def _rules(self, dry: bool) -> NameRules | None:
        """What the target makes of names: as far as it could be seen, or tried where we may."""
        session, found = self._session, self._session.target_found
        folds = found["case_folding"]
        if session.archive_name:
            if found["left"] and session.request.resume and session.keeps_archive_known and not dry:
                session.stage(self._held.told)
            return None
        if found["left"] and session.request.resume and not dry:
            session.stage(self._held.told)
            return self._tried()
        if folds is None and not dry:
            session.stage()
            return self._tried()
        apple = found["system"] == "darwin"
        rules = NameRules(found["name_max"], bool(folds) or (folds is None and apple), apple)
        return self._of_use(rules)

    def _of_use(self, rules: NameRules) -> NameRules | None:
        """The rules, unless every name of the source passes them."""
        plain = not (rules.folds_case or rules.normalises or rules.utf8_only)
        longest: int = self._session.source_found["name_max"]
        return None if plain and longest <= rules.name_max else rules

    def _tried(self) -> NameRules | None:
        return self._of_use(NameRules(*self._session.target.ask("names")["rules"]))

    def _wanted_parts(self) -> set[str]:
        named = map(self._session.at_target, self.planner.large_entries)
        return {entry.path for entry in named if self._held.part(entry)}

    def _part(self, entry: Entry) -> dict[str, Any]:
        return self._held.part(self._session.at_target(entry))

    def _found(self, entries: list[Entry], digests: list[bytes]) -> None:
        """Entries that an earlier attempt has brought; what is removed for them is proven anew."""
        pairs = dict(zip(entries, digests, strict=True))
        entries = self.chooser.still_fits(entries)
        self._stale += pairs.keys() - set(entries)
        digests = [pairs[entry] for entry in entries]
        if self._session.request.verify_level is Verify.READBACK:
            answer = self._session.target.ask("check", pack_entries(entries))["blob"]
            good = []
            for index, (entry, digest) in enumerate(zip(entries, digests, strict=True)):
                if answer[index * DIGEST : (index + 1) * DIGEST] == digest:
                    good.append((entry, digest))
                else:
                    self._stale.append(entry)
                    self.planner.add([self._session.at_source(entry)])
            entries, digests = [entry for entry, _ in good], [digest for _, digest in good]
        if entries:
            self._is_proven(list(map(self._session.at_source, entries)), b"".join(digests))

    def _is_proven(self, entries: list[Entry], digests: bytes) -> None:
        parcel = self.planner.held(entries)
        self.resumed += parcel.files
        self.bytes_held += parcel.bytes
        self._proofs.verified(parcel, pack_entries(entries), digests, (parcel.files, parcel.bytes))

    def _choose_streams(self) -> int:
        """How many streams: those asked for, or what round trip and processors suggest."""
        request, session = self._session.request, self._session
        size = self.planner.bytes
        most = max(1, len(self.planner.parcels) + self.planner.large_bytes // WORTH_A_STREAM)
        if session.archive_name:
            return 1
        if request.streams:
            return min(request.streams, most)
        wanted = 1
        remote = request.source.ssh or request.target.ssh
        if remote and session.round_trip > NEAR:
            wanted = math.ceil(session.round_trip * WANTED_RATE / CHANNEL_WINDOW)
            if request.bwlimit:
                wanted = min(
                    wanted, math.ceil(2 * session.round_trip * request.bwlimit / CHANNEL_WINDOW)
                )
        cores = min(session.source_found["cores"], session.target_found["cores"])
        if remote and cores >= MANY_CORES and size > MANY_BYTES and not request.bwlimit:
            wanted = max(wanted, cores // 4)
        return max(1, min(wanted, request.max_streams, most, math.ceil(size / WORTH_A_STREAM)))

    def _tell_links(self) -> None:
        links = self.chooser.scan_said["hard_links"]
        if links:
            kept = self._session.request.hard_links == "keep"
            what = "are linked at the target, too" if kept else "become files of their own"
            self._watch.warned("HARD_LINKS", f"{links} further names of files {what}")
        skipped = self.chooser.scan_said["links_skipped"]
        if skipped:
            self._watch.warned("LINKS_SKIPPED", f"{skipped} symlinks were left out, as asked")
