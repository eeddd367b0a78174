"""Observer: receives a transfer's reports, and tells it when to stop and how fast to go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from engine.types import ParcelReport, Phase, Progress

if TYPE_CHECKING:
    from engine.agent.wire import Entry
    from engine.loans import Lender


class ProofRecord(Protocol):
    """The caller's own record of what was proven, where no host's people can write.

    `add` takes proven entries, named as at the source: a packed list, and the SHA-256 of each.
    `known` yields what earlier attempts of the same transfer added: entries, and their SHA-256 in
    one piece. It may yield an entry often, and in any order; what it leaves out is read again at
    both ends. `most` is how many entries they planned, at most; None if that is not known. The
    engine calls both once at most, and only if the target says that entries of an earlier attempt
    are staged.
    """

    def add(self, entries: bytes, digests: bytes) -> None: ...

    def most(self) -> int | None: ...

    def known(self) -> Iterable[tuple[list[Entry], bytes]]: ...


class Delivery(Protocol):
    """What a caller does with a delivery, once it stands at the target.

    The engine calls `published` when all that was proven stands at the target. Then, with
    `wants_lines`, `write` with the manifest's lines: those of the entries that this run has proven,
    under the names that they have at the target; not if it has proven none, but skipped some. It
    calls `settled` when nothing is left to be done, or undone.
    """

    wants_lines: bool

    def published(self) -> None: ...

    def write(self, lines: Iterator[bytes]) -> None: ...

    def settled(self) -> None: ...


class Observer(Protocol):
    """The caller's side of a running transfer.

    The engine calls all methods from the thread that called `engine.run`. It calls
    `checkpoint` at least once a second; `checkpoint` may raise to stop the transfer: `Cancelled`,
    or any other error, which passes through unchanged after the agents have ended. It then calls
    `alive` as often while it removes the data that arrived; `alive` must not raise for the same
    reason. `bandwidth` returns the bytes per second that the transfer may use now, given the
    request's `bwlimit`; the engine calls it all the time. It makes manifests only if
    `wants_manifests`: they cost some time. `event` reports the few things worth a line in a
    job's history, never one per file. `progress` is called at most twice a second. With a
    `lender`, other workers may carry some of the parcels. Without a `record`, all that an earlier
    attempt brought is read again at both ends; if that is more than 300,000 entries, it is sent
    again.
    """

    wants_manifests: bool
    lender: Lender | None
    record: ProofRecord | None
    delivery: Delivery | None

    def checkpoint(self) -> None: ...

    def alive(self) -> None: ...

    def bandwidth(self, asked: int) -> int: ...

    def phase(self, phase: Phase) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def parcel(self, parcel: ParcelReport) -> None: ...

    def rooted(self, source: str, target: str) -> None: ...

    def planned(self, plan: dict[str, Any]) -> None: ...

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None: ...


class SilentObserver:
    """An observer that ignores all reports; a base class for real ones."""

    wants_manifests = False
    lender: Lender | None = None
    record: ProofRecord | None = None
    delivery: Delivery | None = None

    def checkpoint(self) -> None:
        """Let the transfer continue."""

    def alive(self) -> None:
        """Let the removal continue."""

    def bandwidth(self, asked: int) -> int:
        """Return the request's own limit."""
        return asked

    def phase(self, phase: Phase) -> None:
        """Ignore the phase."""

    def progress(self, progress: Progress) -> None:
        """Ignore the counters."""

    def parcel(self, parcel: ParcelReport) -> None:
        """Ignore the parcel."""

    def rooted(self, source: str, target: str) -> None:
        """Accept the real paths of both roots."""

    def planned(self, plan: dict[str, Any]) -> None:
        """Ignore the plan."""

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Ignore the event."""
