"""Loans: parcels of one transfer that other workers (helpers) carry.

The worker that runs the transfer offers parcels through its `Lender`. A helper
takes them one by one, joins the staging folder with agents of its own, and
returns the reports of both ends. Proof, publishing and the removal at the source stay
with the one worker. If a helper is lost, the target's agent fences it out before
another worker sends its parcels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.agent.typed import NamedTuple
from engine.types import Blob


class Location(NamedTuple):
    """Where a transfer's ends are, as its own worker found them; all fields fit into JSON.

    A helper compares `machine` and `folder` (device, inode) to check that it sees the same
    source, and `target_machine` to check that it writes from the same machine: only there do
    locks and durability hold. `names` are a single file's names at the source and the target.
    """

    source_path: str
    target_path: str
    names: Sequence[str]
    machine: str
    folder: Sequence[int | str]
    target_machine: str


class LentParcel(NamedTuple):
    """One parcel to carry; `entries` is its packed list, see `agent.wire.pack_entries`."""

    number: int
    kind: str
    files: int
    bytes: int
    entries: Blob
    slices: Sequence[Sequence[int]] = ()


class ParcelResult(NamedTuple):
    """The outcome of a lent parcel.

    `proven` are packed entries with their digests. `failures` (path, code, sentence) are final;
    `undelivered` counts those that are not folders. With `returned`, the parcel came back and
    only the `label` of the helper that had it is known (empty if no helper had it).
    """

    number: int
    label: str = ""
    proven: Sequence[tuple[Blob, Blob]] = ()
    failures: Sequence[Sequence[str]] = ()
    undelivered: int = 0
    returned: bool = False


class LoanStatus(NamedTuple):
    """What other workers have done since the last look.

    `moving` counts the bytes that they have moved of parcels they still have; `room` is the
    number of further parcels that they would take.
    """

    results: Sequence[ParcelResult] = ()
    moving: int = 0
    room: int = 0


class Lender(Protocol):
    """The other workers, as the one that runs a transfer sees them.

    `helpers` returns how many workers are free to help with `size` bytes, which go over
    `streams` streams without help. `look` gets the number of bytes that still wait, and over how
    many streams they go; it returns each result once. `withdraw` takes back the parcels that no
    helper has taken, and returns their numbers; afterwards no helper can take them.
    """

    def helpers(self, size: int, streams: int) -> int: ...

    def look(self, left: int, streams: int) -> LoanStatus: ...

    def offer(self, location: Location, loans: Sequence[LentParcel]) -> None: ...

    def withdraw(self) -> Sequence[int]: ...
