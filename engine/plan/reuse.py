"""Reuse: proves the staged entries of an earlier attempt again, so that they need no sending."""

from __future__ import annotations

from engine.agent.wire import FILE, LIST_BYTES, Entry, pack_entries
from engine.parcels.builder import ParcelBuilder
from engine.plan.compare import ASKED_AT_ONCE, TreeComparison
from engine.plan.on_record import OnRecord
from engine.plan.resumed import Resumed
from engine.proof.proofs import Proofs
from engine.protocol.commands import CHECK, DISCARD, HASH
from engine.protocol.digests import agree, digest_at, require_digests
from engine.protocol.lists import in_parts, weight_of
from engine.protocol.messages import FilePart
from engine.session.session import Session
from engine.types import Mode, Verify


class Reuse:
    """Decides which entries of `resumed` are trusted, and has the target discard the others.

    Their digests come from a journal at the target. A digest counts only if `on_record` has it, or
    if both ends read the entry again now. `files` counts the trusted ones, without folders;
    `bytes` counts their bytes.
    """

    def __init__(
        self,
        session: Session,
        resumed: Resumed,
        on_record: OnRecord,
        builder: ParcelBuilder,
        comparison: TreeComparison,
        proofs: Proofs,
    ) -> None:
        self._session, self._resumed, self._proofs = session, resumed, proofs
        self._on_record = on_record
        self._builder, self._comparison = builder, comparison
        self.files = self.bytes = 0
        self._stale: list[Entry] = []

    def delivered(self) -> None:
        """Take the entries of the archive that an earlier attempt delivered as proven."""
        for entries, digests in self._resumed.all():
            self._add_proven(*self._unchanged(entries, digests))

    def staged(self) -> None:
        """After the scan: reuse the staged entries that are proven; discard the others."""
        self._on_record.look_up(self._session.inbox.check)
        self._resumed.sort(self._check_staged, self._add_stale)
        for path in self._resumed.parts.keys() - self._wanted_parts():
            self._stale.append(Entry(path, FILE, 0, 0, 0, 0))
        self._discard()

    def _add_stale(self, entries: list[Entry]) -> None:
        """Have stale entries discarded as soon as they are some: a target may list many."""
        self._stale += entries
        if len(self._stale) >= ASKED_AT_ONCE or sum(map(weight_of, self._stale)) > LIST_BYTES:
            self._discard()

    def _discard(self) -> None:
        stale, self._stale = self._stale, []
        for at in range(0, len(stale), ASKED_AT_ONCE):
            for part in in_parts(pack_entries(stale[at : at + ASKED_AT_ONCE])):
                self._session.target.request(DISCARD, part)

    def part(self, entry: Entry) -> FilePart | None:
        """Return the part of a file that arrived, given the file's entry at the source."""
        return self._resumed.part(self._session.aim.at_target(entry))

    def _wanted_parts(self) -> set[str]:
        named = map(self._session.aim.at_target, self._builder.large_entries)
        return {entry.path for entry in named if self._resumed.part(entry)}

    def _check_staged(self, entries: list[Entry], digests: list[bytes]) -> None:
        """Reuse staged entries if both ends still agree on them; else send them again."""
        pairs = dict(zip(entries, digests, strict=True))
        known: list[Entry] = []
        unknown: list[Entry] = []
        for entry in self._comparison.still_fits(entries):
            has = self._on_record.has(self._session.aim.at_source(entry), pairs[entry])
            (known if has else unknown).append(entry)
        self._add_stale(list(pairs.keys() - set(known) - set(unknown)))
        self._check(known, pairs, on_record=True)
        self._check(unknown, pairs, on_record=False)

    def _check(self, entries: list[Entry], pairs: dict[Entry, bytes], on_record: bool) -> None:
        """Reuse entries whose digest in `pairs` is that of each end that reads them again."""
        read_again = self._read_again(entries, on_record) if entries else []
        good: list[Entry] = []
        proofs = b""
        for index, entry in enumerate(entries):
            digest = pairs[entry]
            found = [digest_at(digests, index) for digests in read_again]
            # Without one that was read again, the digest on record counts, but only if it is one.
            if all(agree(digest, other) for other in found or [digest]):
                good.append(self._session.aim.at_source(entry))
                proofs += digest
            else:
                self._stale.append(entry)
                self._builder.add([self._session.aim.at_source(entry)])
        if good:
            self._add_proven(good, proofs, on_record)

    def _read_again(self, entries: list[Entry], on_record: bool) -> list[bytes]:
        """Return the digests of staged entries, from each end that has to read them again.

        The target reads them at level readback. The source reads them in a move: it removes only
        what was compared in this attempt, whatever a journal at the target says. Both read them
        if they are not on record, and if the target's file system keeps no owners, since another
        user may have made the journal.
        """
        request, session = self._session.request, self._session
        digests: list[bytes] = []
        both = not (on_record and session.staging.keeps_owners)
        of_target = both or request.verify_level is Verify.READBACK
        of_source = both or request.mode is Mode.MOVE
        if of_target:
            session.target.send(CHECK, pack_entries(entries))
        if of_source:
            at_source = pack_entries(map(session.aim.at_source, entries))
            session.source.send(HASH, at_source, at_source=True)
        if of_target:
            digests.append(require_digests(session.target.reply(CHECK), len(entries)).digests)
        if of_source:
            digests.append(require_digests(session.source.reply(HASH), len(entries)).digests)
        return digests

    def _unchanged(self, entries: list[Entry], digests: bytes) -> tuple[list[Entry], bytes]:
        """Drop an archive's entries whose content at the source now differs: those stay there."""
        if self._session.request.mode is not Mode.MOVE:
            return entries, digests
        blob = pack_entries(entries)
        found = self._session.source.request(HASH, blob, at_source=True)
        require_digests(found, len(entries))
        gone, good, proofs = set(found.gone), [], b""
        for index, entry in enumerate(entries):
            digest = digest_at(digests, index)
            # What is gone already cannot be removed by mistake.
            if agree(digest, digest if index in gone else digest_at(found.digests, index)):
                good.append(entry)
                proofs += digest
            else:
                sentence = "its content differs from the delivered archive; it stays at the source"
                self._proofs.failed(entry.path, "SOURCE_CHANGED", sentence)
        return good, proofs

    def _add_proven(self, entries: list[Entry], digests: bytes, on_record: bool = False) -> None:
        parcel = self._builder.resumed(entries)
        self.files += parcel.files
        self.bytes += parcel.bytes
        count = (parcel.files, parcel.bytes)
        self._proofs.verified(parcel, pack_entries(entries), digests, count, on_record)
