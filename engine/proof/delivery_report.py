"""DeliveryReport: reports a delivery that stands at the target to the caller, with its manifest."""

from __future__ import annotations

from engine.agent.wire import Entry
from engine.observer import Delivery
from engine.parcels.spool import Block, Spool
from engine.proof.proofs import Proofs
from engine.session.session import Session


class DeliveryReport:
    """What publishing came to: an archive's entry and `digest`, or if entries were `renamed`."""

    def __init__(self, session: Session, spool: Spool, delivery: Delivery | None) -> None:
        self._session, self._spool, self._delivery = session, spool, delivery
        self.digest = ""
        self.archive: Entry | None = None
        self.renamed = False

    def published(
        self, proofs: Proofs, there: list[tuple[Block, Block]], skipped: int, archive: str
    ) -> None:
        """Report the delivery; hand over its manifest if one is wanted and something was proven.

        `there` are entries that the target had and that are proven, with their digests; `skipped`
        is the number of all that it had, `archive` the archive of an earlier attempt.
        """
        if self._delivery is None:
            return
        self._delivery.published()
        if not self._delivery.wants_lines:
            return
        from engine.proof import manifest_lines  # Only where a manifest is wanted.

        if proofs.files or there or not skipped:
            pairs = [*proofs.pairs(), *there]
            whole = (self.archive, self.digest) if self.archive else None
            if archive:
                whole = manifest_lines.archive_at(self._session, archive)
            self._delivery.write(
                manifest_lines.lines(self._session, self._spool, pairs, self.renamed, whole)
            )

    def settled(self) -> None:
        """Report that nothing is left to be done."""
        if self._delivery is not None:
            self._delivery.settled()
