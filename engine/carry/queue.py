"""ParcelQueue: the parcels that this process has still to send."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from engine import errors
from engine.parcels.builder import Parcel

if TYPE_CHECKING:
    from engine.loans import ParcelResult


class ParcelQueue:
    """Parcels in the order in which they are sent; the base class of a queue that lends some.

    If `look_is_due`, a carrier asks for `results`, and calls `lend`.
    """

    #: Bytes that other workers have moved of parcels they still have.
    moving_elsewhere = 0

    def __init__(self) -> None:
        self.waiting: deque[Parcel] = deque()

    @property
    def look_seconds(self) -> float:
        """Seconds after which a carrier asks whether a look is due, even without a message."""
        return math.inf

    @property
    def has_work(self) -> bool:
        """True if a parcel waits here, or another worker has one."""
        return bool(self.waiting)

    def next(self) -> Parcel | None:
        """Take the next parcel; drop those of a file that cannot be delivered."""
        while self.waiting:
            parcel = self.waiting.popleft()
            if not (parcel.large and parcel.large.failed):
                return parcel
            parcel.large.parcels_left -= 1
        return None

    def put_back(self, parcels: Iterable[Parcel]) -> None:
        """Put parcels back at the front that were taken and not sent; the last one comes first."""
        self.waiting.extendleft(parcels)

    def look_is_due(self) -> bool:
        """True if it is time to ask what other workers have carried."""
        return False

    def results(self, streams: int) -> Sequence[tuple[Parcel, ParcelResult]]:
        """Return the parcels that other workers have carried since the last call."""
        return ()

    def lend(self, streams: int) -> None:
        """Offer parcels to other workers, if more wait here than `streams` streams need."""

    def fenced_out(self, label: str) -> None:
        """Handle the target's reply that it has fenced out the helper of this label.

        Raises AgentFailed if the worker did not ask for that.
        """
        raise errors.AgentFailed(
            f"protocol error at the target: unexpected fence-out of helper {label:.40}"
        )
