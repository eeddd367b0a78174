"""WholeFiles: has both ends read a file that was sent in slices once all slices have arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine import errors
from engine.agent.wire import Entry, pack_entries
from engine.carry.in_flight import TRIES
from engine.parcels.builder import LargeFile, Parcel
from engine.parcels.spool import Spool
from engine.protocol.commands import COMPLETE, DISCARD, HASH
from engine.protocol.digests import agree
from engine.session.session import Session
from engine.session.stream import Stream
from engine.types import display_path


class WholeFile:
    """A file whose slices have all arrived, and the SHA-256 that each end has reported of it."""

    def __init__(self, large: LargeFile, parcel: Parcel) -> None:
        self.large, self.parcel = large, parcel
        #: The target's digest at True, the source's at False.
        self.digests: dict[bool, bytes] = {}

    @property
    def is_proven(self) -> bool:
        """True if both ends have the same content."""
        return agree(self.digests[False], self.digests[True])


class WholeFiles:
    """The files of a transfer that are sent in slices; `slice_again` makes one's parcels again."""

    def __init__(
        self,
        session: Session,
        spool: Spool,
        slice_again: Callable[[LargeFile], Iterable[Parcel]],
    ) -> None:
        self._session, self._spool, self._slice_again = session, spool, slice_again
        self._reading: dict[str, WholeFile] = {}
        self._broken: list[Entry] = []

    @property
    def are_read(self) -> bool:
        """True while an end still reads a file."""
        return bool(self._reading)

    def slice_done(self, stream: Stream, parcel: Parcel) -> None:
        """Count a parcel of slices that has arrived; after a file's last, both ends read it."""
        large = parcel.large
        assert large
        large.parcels_left -= 1
        if large.parcels_left or large.failed:
            return
        blob = self._spool.get(parcel.block)
        path = large.entry.path
        self._reading[path] = WholeFile(large, parcel)
        stream.source.send(HASH, blob, at_source=True, whole=path)
        stream.order(COMPLETE, self._session.aim.list_at_target(blob), whole=path)

    def digest_came(self, path: str, digest: bytes, of_target: bool) -> WholeFile | None:
        """Record one end's digest of a file; return the file once both ends have reported.

        Raises AgentFailed if the end does not read this file, or has reported it already.
        """
        whole = self._reading.get(path)
        if whole is None or of_target in whole.digests:
            where = "target" if of_target else "source"
            raise errors.AgentFailed(
                f"protocol error at the {where}: unexpected digest of {display_path(path):.500}"
            )
        whole.digests[of_target] = digest
        return self._reading.pop(path) if len(whole.digests) == 2 else None

    def send_again(self, whole: WholeFile) -> Iterable[Parcel]:
        """Return the parcels of a file that arrived damaged; raises VerifyFailed after TRIES."""
        large = whole.large
        if large.tries == TRIES:
            raise errors.VerifyFailed(
                f"{display_path(large.entry.path)} arrived damaged {TRIES} times: "
                "the digests of both ends differ"
            )
        large.tries += 1
        return self._slice_again(large)

    def add_broken(self, large: LargeFile) -> None:
        """Note a file that cannot be delivered; `discard_broken` removes what has arrived."""
        self._broken.append(self._session.aim.at_target(large.entry))

    def discard_broken(self) -> bool:
        """Have the target remove what it has of broken files; False if there are none.

        Call it after all parcels: a slice that is still on its way would make the file again.
        """
        broken, self._broken = self._broken, []
        if broken:
            self._session.streams[0].order(DISCARD, pack_entries(broken))
        return bool(broken)
