"""What has been proven, parcel by parcel: the base of publishing, and of removing a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from engine.agent.wire import DIGEST, unpack_entries
from engine.plan import Parcel
from engine.session import Session
from engine.spool import Block, Spool
from engine.types import ParcelState
from engine.watch import Watch

#: Commands that a source may be given before its first answer.
ASKED_AHEAD = 4


class Proven(NamedTuple):
    """Entries of a parcel whose digests agreed at both ends, and those digests."""

    parcel: Parcel
    entries: Block
    digests: Block


class Proofs:
    """Collects what is proven, and tells the observer; it is what the carrier reports to."""

    def __init__(self, session: Session, spool: Spool, watch: Watch) -> None:
        self._session, self._spool, self._watch = session, spool, watch
        self._proven: list[Proven] = []
        self._told: set[int] = set()
        #: Entries that are not folders, and their bytes.
        self.files = self.bytes = 0

    def started(self, parcel: Parcel) -> None:
        """A parcel is on its way."""
        self._watch.tell(parcel, ParcelState.SENDING)

    def failed(self, path: str, code: str, message: str) -> None:
        """An entry could not be delivered."""
        self._watch.fail(path, code, message)

    def moved(self, done_bytes: int, done_files: int) -> None:
        """The counters changed."""
        self._watch.moved(done_bytes, done_files)

    def bandwidth(self, asked: int) -> int:
        """How many bytes per second may be used now."""
        return self._watch.bandwidth(asked)

    def warned(self, code: str, message: str) -> None:
        """Something is not as it should be, and the transfer goes on."""
        self._watch.warned(code, message)

    def verified(
        self, parcel: Parcel, entries: bytes, digests: bytes, count: tuple[int, int]
    ) -> None:
        """Entries of a parcel are proven, so many files and bytes.

        None for a parcel of slices, until the file is whole.
        """
        manifest = None
        if entries:
            self.files += count[0]
            self.bytes += count[1]
            block = self._spool.add(entries)
            self._proven.append(Proven(parcel, block, self._spool.add(digests)))
            if self._watch.wants_manifests:
                from engine import manifest as manifests  # Only where they are wanted.

                pairs = (
                    (entry, digests[at * DIGEST : (at + 1) * DIGEST])
                    for at, entry in enumerate(unpack_entries(entries))
                )
                manifest = manifests.write(pairs)
        self._watch.tell(parcel, ParcelState.VERIFIED, manifest)

    def tell(self, state: ParcelState) -> None:
        """All parcels have come to a further state."""
        for parcel in {proven.parcel.number: proven.parcel for proven in self._proven}.values():
            self._watch.tell(parcel, state)

    def put_down(self) -> None:
        """Have the target put down what the archive holds, in its journal."""
        for proven in self._proven:
            entries = self._spool.get(proven.entries)
            self._session.target.ask(
                "inside",
                entries + self._spool.get(proven.digests),
                size=len(entries),
            )

    def remove_source(self, there: Iterable[Block]) -> int:
        """Remove at the source what was proven, and `there` at the target; return how many went."""
        in_order = sorted(self._proven, key=lambda proven: proven.parcel.number)
        blocks = [proven.entries for proven in in_order] + list(there)
        source, removed = self._session.source, 0
        asked = 0
        waiting = deque(blocks)
        while waiting or asked:
            if waiting and asked < ASKED_AHEAD:
                # Whoever was frozen and replaced meanwhile learns of it here, and removes nothing.
                self._session.hub.check()
                source.tell("remove", self._spool.get(waiting.popleft()))
                asked += 1
                continue
            answer = source.answer("remove")
            asked -= 1
            removed += answer["removed"]
            for path, code, message in answer["kept"]:
                self._watch.fail(path, code, message)
        self._remove_folders(blocks)
        return removed

    def _remove_folders(self, blocks: list[Block]) -> None:
        """Remove the folders that are empty now, from the last, which is the deepest, on.

        What an earlier attempt has brought stands first, wherever it lies: so once
        more, as long as that helps.
        """
        went, full = 1, 1
        while went and full:
            went = full = 0
            problems: list[list[str]] = []
            for block in reversed(blocks):
                answer = self._session.source.ask("remove_folders", self._spool.get(block))
                went, full = went + answer["removed"], full + answer["full"]
                problems += answer["problems"]
        self._watch.warn("FOLDER_NOT_REMOVED", "empty folders could not be removed", problems)
