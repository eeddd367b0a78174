"""A worker that dies at one moment of the late clean-up after a cancelled job's end.

`KETTER_TEST_DIES` names the moment (at `never` the line is cut, and it lives); `KETTER_TEST_WHO`
says who dies: `both`, the worker and its work-horse, or `horse` alone. It dies once: that makes
the file `KETTER_TEST_DIED`. Before a job's end each try to remove its data fails, as at a host that
hangs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import engine
from jobs import tasks
from jobs.running import execution
from jobs.worker import KetterWorker

_moment, _who = os.environ["KETTER_TEST_DIES"], os.environ["KETTER_TEST_WHO"]
_died = os.environ["KETTER_TEST_DIED"]
_discard, _clear_after_cancel = engine.discard, execution.clear_after_cancel


def _dies_at(moment: str) -> None:
    if moment != _moment or os.path.exists(_died):
        return
    with open(_died, "w"):
        pass
    if _who == "both":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _hangs_before_the_end(
    request: engine.Request, alive: Callable[[], None], *, hasty: bool, **more: Any
) -> None:
    if hasty:
        raise engine.Stalled("it hangs")

    def dying() -> None:
        _dies_at("removing")
        alive()

    if _moment in ("waiting", "never"):
        raise engine.ConnectionLost("the line was cut")
    _discard(request, dying, hasty=hasty, **more)
    _dies_at("removed")


def _begin(*arguments: Any) -> None:
    _dies_at("ended")
    _clear_after_cancel(*arguments)
    _dies_at("recorded")


class _Clock:
    """The clock as it is; the wait between two tries is a moment of its own."""

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def sleep(seconds: float) -> None:
        _dies_at("waiting")
        time.sleep(seconds)


vars(engine)["discard"] = _hangs_before_the_end
vars(tasks)["clear_after_cancel"] = _begin
vars(execution)["time"] = _Clock


class DyingWorker(KetterWorker):
    """The worker as it is; importing this module is what changes its clean-up."""
