"""`python -m engine.cli`, killed at a point: python -m tests.filesystems.striking POINT ARGUMENTS.

A point is a phase, whose beginning kills the command; `first-parcel`, when one is proven; or
`first-name`, which kills the target's agent once it has put one entry into its place.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from engine import ParcelReport, ParcelState, Phase, SilentObserver
from engine.cli import __main__ as command
from engine.connect import bundle

POINTS = (
    *(phase.value for phase in Phase if phase is not Phase.VERIFY),
    "first-parcel",
    "first-name",
)

#: In the target's agent: dies once it has renamed or linked from one folder into another.
_DYING = b"""
def _dying():
    import os, signal, ctypes
    def deadly(call, keys):
        def with_death(*args, **kwargs):
            done = call(*args, **kwargs)
            if not done and (not keys or kwargs.get(keys[0]) != kwargs.get(keys[1])):
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return with_death
    for name in ("rename", "link"):
        setattr(os, name, deadly(getattr(os, name), ("src_dir_fd", "dst_dir_fd")))
    load = ctypes.CDLL
    def loaded(*args, **kwargs):
        library = load(*args, **kwargs)
        call = getattr(library, "renameat2", None)
        if call is not None:
            library.renameat2 = deadly(call, ())
        return library
    ctypes.CDLL = loaded
_dying()
"""


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_phase(point: str) -> None:
    def enter(self: SilentObserver, phase: Phase) -> None:
        if phase.value == point:
            _die()

    SilentObserver.phase = enter  # type: ignore[method-assign]


def _at_parcel() -> None:
    before = command._PlainObserver.parcel

    def report(self: Any, parcel: ParcelReport) -> None:
        before(self, parcel)
        if parcel.state is ParcelState.VERIFIED:
            _die()

    command._PlainObserver.parcel = report  # type: ignore[method-assign]


def _at_name() -> None:
    source_of = bundle.source_of

    def planted(name: str) -> bytes:
        source = source_of(name)
        first = b"import errno\n"
        return source.replace(first, first + _DYING, 1) if name == "wire" else source

    bundle.source_of = planted


if __name__ == "__main__":
    wanted = sys.argv.pop(1)
    if wanted == "first-parcel":
        _at_parcel()
    elif wanted == "first-name":
        _at_name()
    else:
        _at_phase(wanted)
    os._exit(command._run())
