"""Where a person waits, a host that works for ever, or says that it does, is given up soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import engine
from engine import connection_probe, leftovers
from engine.types import Endpoint, Phase
from tests.engine.test_steps_end import Cancel, hang
from tests.rig.lanes import nightly
from tests.rig.lying import Lie
from tests.rig.transfers import Run
from tests.rig.trees import build_small

#: What an agent does that works for ever, or says that it does.
WORKS = "sum(range(1000)); time.sleep(0.01)"


def again(lie: str) -> str:
    """Make a lie one that stands beside another one."""
    return lie.replace("_carry_out", "_carry_on").replace("Agent._carry_on", "Agent._carry_out")


@pytest.mark.parametrize("op", ["clean", nightly("open")])
def test_a_cancel_ends_within_five_seconds_though_the_clean_up_works_for_ever(
    tmp_path: Path, run: Run, lie: Lie, op: str
) -> None:
    build_small(tmp_path / "a", 5)
    lie(main=hang("target", "publish") + again(hang("target", op, WORKS)))
    observer = Cancel(Phase.PUBLISH)

    with pytest.raises(engine.Cancelled) as caught:
        run(observer)

    assert time.monotonic() - observer.at < 5.0
    (note,) = caught.value.__notes__
    assert "could not be removed" in note


def test_a_hasty_removal_has_time_for_each_entry_that_was_staged(tmp_path: Path, lie: Lie) -> None:
    place = Endpoint(str(tmp_path), "")
    lie(main=hang("target", "clean", "[sum(range(10**4)) for _ in range(15000)]; break"))
    names = {"transfer_id": "test", "spare_id": ""}

    with pytest.raises(engine.Stalled):
        leftovers.clean(place, names, 1, lambda: None, hasty=True, within=1.0)
    leftovers.clean(place, names, 1, lambda: None, hasty=True, within=1.0, staged=20_000)


def test_a_connection_test_ends_in_a_minute_though_the_host_works_for_ever(
    tmp_path: Path, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_probe, "LOOK_SECONDS", 1.0)
    lie(main=hang("target", "inspect", WORKS))
    began = time.monotonic()

    with pytest.raises(engine.Stalled, match=r"inspect the place.* in [12] s"):
        engine.probe(Endpoint(str(tmp_path), ""))

    assert time.monotonic() - began < 10.0
