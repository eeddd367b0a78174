"""TransferPlan: which entries to send, which have arrived already, and how many streams to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import errors
from engine.agent.target.name_rules import NameRules
from engine.observer import ProofRecord
from engine.parcels.builder import ParcelBuilder
from engine.parcels.spool import Block, Spool
from engine.plan.compare import TreeComparison
from engine.plan.on_record import OnRecord
from engine.plan.resumed import Resumed
from engine.plan.reuse import Reuse
from engine.plan.streams import choose_streams
from engine.proof.proofs import Proofs
from engine.proof.reporter import Reporter, Totals
from engine.protocol.commands import NAMES
from engine.session.session import Session
from engine.types import HardLinks, Mode

if TYPE_CHECKING:
    from engine.loans import Lender

#: Entries that cannot be carried, of which a plan names this many at most.
NAMED = 20
#: After this many attempts parcels stay small: a broken connection has those under way sent again.
FINE_AFTER = 2


class TransferPlan:
    """The plan of one transfer, and its figures."""

    def __init__(
        self,
        session: Session,
        spool: Spool,
        reporter: Reporter,
        proofs: Proofs,
        lender: Lender | None = None,
        record: ProofRecord | None = None,
    ) -> None:
        self._session, self._reporter = session, reporter
        on_record = OnRecord(record)
        self._resumed = Resumed(spool, on_record, session.aim.at_source)
        fine = session.request.attempt > FINE_AFTER
        self.builder = ParcelBuilder(session.request.strategy, spool, fine)
        self.comparison = TreeComparison(session, self.builder, spool, self._resumed, reporter.fail)
        self._reuse = Reuse(
            session, self._resumed, on_record, self.builder, self.comparison, proofs
        )
        self.streams = 1
        self._lender = lender
        #: Bytes that an earlier attempt delivered, including those of incomplete files.
        self.bytes_resumed = 0

    def plan(self, dry: bool) -> None:
        """Make the plan; with `dry`, change nothing at the target."""
        session = self._session
        rules = self._rules(dry)
        session.is_dry = dry
        self.comparison.choose(rules)
        if self.delivered:
            self._reuse.delivered()
            self.bytes_resumed = self._reuse.bytes
            return
        self._reuse.staged()
        if self._leaves_folders_alone():
            self.builder.drop()
        self.builder.finish()
        self.streams = choose_streams(session, self.builder)
        if self.streams > 1:
            self.builder.put_largest_first()
        self.bytes_resumed = self._reuse.bytes
        helpers = 0
        if self._lender and not session.aim.archive_name and not dry:
            helpers = self._lender.helpers(self.builder.bytes, self.streams)
        self.bytes_resumed += self.builder.plan_large(self.streams, self._reuse.part, helpers)
        self._report_links()

    def _leaves_folders_alone(self) -> bool:
        """True if the target lacks nothing: all there is to send are folders it has unchanged.

        In a move they go on, for only what was sent and proven is removed at the source.
        """
        session, builder = self._session, self.builder
        request, unchanged = session.request, self.comparison.tally.unchanged
        if request.mode is Mode.MOVE or request.xattrs or session.aim.archive_name:
            return False
        if self.resumed or session.staging.is_there:
            return False
        return bool(unchanged) and builder.counts.total() == unchanged

    @property
    def resumed(self) -> int:
        """Number of entries, without folders, that an earlier attempt delivered."""
        return self._reuse.files

    def there(self) -> tuple[list[tuple[Block, Block]], int, str]:
        """Return what the target had: proven entries and their digests, and how many were skipped.

        Last the path of the archive in which an earlier attempt delivered all entries, if it did.
        """
        found = self.comparison
        return found.proven, found.tally.skipped, self._resumed.delivered

    @property
    def delivered(self) -> bool:
        """True if an earlier attempt delivered all entries in one archive."""
        return bool(self._resumed.delivered)

    @property
    def has_work(self) -> bool:
        """True if there is something to send, to publish or to clear away."""
        if self.delivered:
            return False
        staged = self._session.staging.is_there
        return bool(self.builder.parcels or self.builder.last_parcels or self.resumed or staged)

    def refuse(self) -> None:
        """Raises TargetExists for conflicts, NoSpace if the target has too few bytes or inodes.

        Holes need no room, except in an archive, or if all is reserved. A target that reports no
        size at all has an unknown one. What is free on file systems that begin below the target
        counts with that: each of them may become full for itself.
        """
        self.comparison.refuse_conflicts()
        session, found, need = self._session, self._session.target_found, self.builder.bytes
        need -= self.bytes_resumed - self._reuse.bytes
        if not (session.aim.archive_name or session.request.preallocate):
            need = max(0, need - self.comparison.scan.holes - session.aim.holes)
        if not found.size:
            sentence = "the target's file system does not say how much room it has"
            self._reporter.warned("SPACE_UNKNOWN", f"{sentence}: it may become full")
        elif need > found.free + self.comparison.tally.room:
            free = found.free + self.comparison.tally.room
            raise errors.NoSpace(f"the target has {free:,} bytes free, the transfer needs {need:,}")
        entries = 1 if self._session.aim.archive_name else self.builder.counts.total()
        if 0 <= found.free_inodes < entries:
            raise errors.NoSpace(
                f"the target has {found.free_inodes:,} inodes free, the transfer needs {entries:,}"
            )

    def totals(self) -> Totals:
        """Return how much the transfer has to do, including what an earlier attempt did."""
        builder, comparison = self.builder, self.comparison
        files = builder.files + self.resumed + comparison.tally.skipped + comparison.tally.failed
        return Totals(files, builder.bytes + self._reuse.bytes, comparison.tally.skipped)

    def summary(self) -> dict[str, Any]:
        """Return the plan in figures, for people and for the job's record; sizes in bytes."""
        comparison, found = self.comparison, self._session.target_found
        return {
            **self.builder.summary(),
            "skipped": comparison.tally.skipped,
            "replaced": comparison.tally.replaced,
            "conflicts": comparison.tally.conflicts,
            "conflict_names": comparison.tally.conflict_names,
            "not_possible": comparison.tally.failed,
            "failures": [failure._asdict() for failure in self._reporter.failures[:NAMED]],
            "hard_links": comparison.scan.hard_links,
            "links_skipped": comparison.scan.links_skipped,
            "resumed": self.resumed,
            "bytes_resumed": self.bytes_resumed,
            "streams": self.streams,
            "one_file": bool(self._session.aim.single),
            "round_trip_ms": round(self._session.round_trip * 1000, 1),
            "mounts": comparison.tally.mounts,
            "free_bytes": found.free if found.size else -1,
            "free_inodes": found.free_inodes,
        }

    def _rules(self, dry: bool) -> NameRules | None:
        """Return the target's rules for names, or None if every name obeys them.

        They are tested in the staging folder, where it may be made; else taken from `inspect`.
        """
        session, found = self._session, self._session.target_found
        folds = found.case_folding
        if session.aim.archive_name:
            if found.left and session.request.resume and session.keeps_archive_known and not dry:
                session.staging.make(self._resumed.on_message)
            return None
        if found.left and session.request.resume and not dry:
            self._take_up()
            return self._tested_rules()
        if (folds is None or found.foreign) and not dry:
            session.staging.make()
            return self._tested_rules()
        apple = session.target_system == "darwin"
        rules = NameRules(found.name_max, bool(folds) or (folds is None and apple), apple)
        return self._if_needed(rules)

    def _take_up(self) -> None:
        """Take up what an earlier attempt left; begin from nothing if that cannot be so much."""
        staging = self._session.staging
        staging.make(self._resumed.on_message)
        if self._resumed.is_too_long:
            self._resumed.forget()  # Parts of files may have come after the list.
            self._reporter.warned(
                "RESUME_TOO_LONG",
                "the target lists more as arrived than earlier attempts planned, as far as this "
                "machine has a record of them: the transfer begins from nothing",
            )
            staging.remove(undo=True)  # So that the folders made for it count as made again.
            staging.make()

    def _if_needed(self, rules: NameRules) -> NameRules | None:
        """Return the rules, or None if every name of the source obeys them."""
        plain = not (rules.folds_case or rules.normalises or rules.utf8_only)
        longest = self._session.source_found.name_max
        return None if plain and longest <= rules.name_max else rules

    def _tested_rules(self) -> NameRules | None:
        return self._if_needed(NameRules(*self._session.target.request(NAMES)))

    def _report_links(self) -> None:
        links = self.comparison.scan.hard_links
        if links:
            kept = self._session.request.hard_links == HardLinks.KEEP
            what = "stay hard links at the target" if kept else "become separate files"
            self._reporter.warned("HARD_LINKS", f"{links} further names of files {what}")
        unknown = self.comparison.scan.links_unknown
        if unknown:
            sentence = f"{unknown} names of hard-linked files become separate files"
            self._reporter.warned("HARD_LINKS", f"{sentence}: the source keeps no inode numbers")
        skipped = self.comparison.scan.links_skipped
        if skipped:
            sentence = f"{skipped} symlinks were left out, as the option symlinks says"
            self._reporter.warned("LINKS_SKIPPED", sentence)
