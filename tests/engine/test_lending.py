"""Parcels that are lent: what comes back is taken in, what does not is sent again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import engine
from engine import Endpoint, ParcelKind
from engine.agent import main as agents
from engine.loans import LentParcel, LoanStatus, Location, ParcelResult
from engine.parcels.builder import LargeFile, Parcel
from engine.parcels.spool import Block
from engine.share.lending import LENT_BYTES, _can_be_lent
from tests.engine.exactness import to_arrive
from tests.rig.hard_tree import assert_same, build_hard, describe
from tests.rig.lanes import nightly

pytestmark = pytest.mark.usefixtures("leave_no_hard_tree")


class Neighbour(engine.SilentObserver):
    """Lends each parcel once to a helper in this process; `fate` says what becomes of it."""

    def __init__(self, request: engine.Request, fate: str) -> None:
        self._request, self._fate = request, fate
        self.lender = self
        self.lent: list[int] = []
        self._back: list[ParcelResult] = []

    def helpers(self, size: int, streams: int) -> int:
        return 0

    def look(self, left: int, streams: int) -> LoanStatus:
        back, self._back = self._back, []
        return LoanStatus(back, 0, 4)

    def offer(self, location: Location, loans: Sequence[LentParcel]) -> None:
        for loan in loans:
            again = loan.number in self.lent
            self.lent.append(loan.number)
            if self._fate == "carried" or again:
                self._back.append(self._carry(location, loan, f"h{len(self.lent)}"))
            elif self._fate == "carried and not told":
                label = f"lost{loan.number}"
                self._carry(location, loan, label)
                self._back.append(ParcelResult(loan.number, label, returned=True))
            else:
                self._back.append(ParcelResult(loan.number, self._fate, returned=True))

    def withdraw(self) -> Sequence[int]:
        return []

    def _carry(self, location: Location, loan: LentParcel, label: str) -> ParcelResult:
        helper = engine.Helper(self._request, location, label, engine.SilentObserver())
        try:
            return helper.carry(loan)
        finally:
            helper.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little data makes many parcels, and they are lent soon."""
    sizes = {ParcelKind.ZIP: (4 << 10, 4 << 10), ParcelKind.FILE: (8 << 10, 8 << 10)}
    monkeypatch.setattr("engine.parcels.builder.PARCEL_BYTES", sizes)
    monkeypatch.setattr("engine.parcels.builder.PARCEL_ENTRIES", 5)
    monkeypatch.setattr("engine.parcels.builder.SMALL", 8 << 10)
    monkeypatch.setattr("engine.share.lending.LOOK_SECONDS", 0.0)


# "one": all that is lost was with one helper; "": nobody had taken it.
@pytest.mark.parametrize("fate", ["carried", "one", "", "carried and not told"])
@pytest.mark.parametrize("mode", [nightly(engine.Mode.COPY), engine.Mode.MOVE])
def test_the_tree_arrives_whether_lent_parcels_are_carried_or_returned(
    tmp_path: Path, mode: engine.Mode, fate: str
) -> None:
    if (mode, fate) == ("copy", "carried"):
        build_hard(tmp_path / "a", special=False)
    (tmp_path / "a" / "below").mkdir(parents=True, exist_ok=True)
    for number in range(60):
        (tmp_path / "a" / f"f{number}").write_bytes(b"%d" % number)
    before = describe(tmp_path / "a")
    there, back = (Endpoint(str(tmp_path), name) for name in "ab")
    request = engine.Request(there, back, "test", mode=mode)
    observer = Neighbour(request, fate)

    report = engine.run(request, observer)

    assert observer.lent
    assert report.status == "done"
    assert_same(to_arrive(before), describe(tmp_path / "b"))
    assert any((tmp_path / "a").iterdir()) == (mode is engine.Mode.COPY)


def test_oversized_partly_sent_and_unsliced_large_parcels_are_not_lent() -> None:
    def file(size: int, **more: object) -> Parcel:
        return Parcel(1, ParcelKind.FILE, 1, size, Block(0, 0), **more)

    large = LargeFile(None)
    assert _can_be_lent(file(LENT_BYTES))
    assert not _can_be_lent(file(LENT_BYTES + 1))
    assert not _can_be_lent(file(5, start=1))
    assert not _can_be_lent(Parcel(1, ParcelKind.RANGE, 0, 0, Block(0, 0), large=large))


def test_an_agent_whose_output_is_blocked_ends_when_its_transfer_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its lock stays, and nobody can go on from what has arrived."""
    monkeypatch.setattr(agents, "BEAT_SECONDS", 0.05)
    agent = Deaf("00" * 16)

    agent._start_beating()
    assert not agent.ended.wait(0.5)
    agent._context.is_over = lambda: True

    assert agent.ended.wait(5)


def _for_ever(_body: object, blob: bytes = b"") -> None:
    threading.Event().wait()


class Deaf(agents.Agent):
    """An agent to which nobody listens; its threads outlive the test, and must not end it."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.ended = threading.Event()
        setattr(self._context, "say", _for_ever)  # noqa: B010 - one object's, for its life

    def _step_aside(self) -> None:
        self.ended.set()
        self._context.is_over = lambda: False
