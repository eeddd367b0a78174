"""Errands: parcels of one transfer that other workers carry.

The worker that runs the transfer offers them through its `Lender`; a helper
takes them one by one, joins the staging folder with agents of its own, and
hands back what both ends say. Proof, publishing and the source's removal stay
with the one worker. A helper that is lost is shut out at the target before
anybody else sends what it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine.types import Blob

if TYPE_CHECKING:
    from collections.abc import Sequence


class Site(NamedTuple):
    """Where a transfer's ends are, as its own worker has found them; all of it fits into JSON.

    `machine` and `folder` (device, inode) tell a helper whether it sees the same
    source, `target_machine` whether it writes from the same one: locks and what is
    durable hold there; `names` are a single file's, at the source and at the target.
    """

    source_path: str
    target_path: str
    names: Sequence[str]
    machine: str
    folder: Sequence[int]
    target_machine: str


class Errand(NamedTuple):
    """One parcel to be carried; `entries` is its packed list, see `agent.wire.pack_entries`."""

    number: int
    kind: str
    files: int
    bytes: int
    entries: Blob
    slices: Sequence[Sequence[int]] = ()


class Outcome(NamedTuple):
    """What became of an errand.

    `proven` are packed entries with their digests; `failures` (path, code,
    sentence) are final, and `undelivered` says how many of them are no folders.
    With `returned` nothing is known of it but the `label` of the helper that had it.
    """

    number: int
    label: str = ""
    proven: Sequence[tuple[Blob, Blob]] = ()
    failures: Sequence[Sequence[str]] = ()
    undelivered: int = 0
    returned: bool = False


class News(NamedTuple):
    """What other workers have done since the last look.

    `moving` are the bytes of parcels that are with them; `room` is how many more
    parcels they would take.
    """

    outcomes: Sequence[Outcome] = ()
    moving: int = 0
    room: int = 0


class Lender(Protocol):
    """The other workers, as the one that runs a transfer sees them.

    `helpers` says how many of them are free to help with so many bytes, that go over so
    many streams without help; `look` is told how many bytes still wait, and over how many
    streams. Each outcome is told once. `withdraw` takes back what nobody has taken, and
    says the numbers; after it nobody can take them any more.
    """

    def helpers(self, size: int, streams: int) -> int: ...

    def look(self, left: int, streams: int) -> News: ...

    def offer(self, site: Site, errands: Sequence[Errand]) -> None: ...

    def withdraw(self) -> Sequence[int]: ...
