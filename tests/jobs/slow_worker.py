"""A worker whose agents are slow on demand, so that a test can catch a job in each phase.

`KETTER_TEST_SLOW=publish=8` makes every agent wait 8 s before each `publish`, or until there
is a file at `KETTER_TEST_GATE`; it says that it waits by one of that name with `.there`.
`read_back` holds up the target before it reads back a parcel, `clean` does so at the end of a
transfer, not when one is undone; `rename=1` slows each single rename of a `publish`.
"""

from __future__ import annotations

import marshal
import os

from engine.connect import bundle
from jobs.worker import KetterWorker

_op, _, _seconds = os.environ["KETTER_TEST_SLOW"].partition("=")
_gate = os.environ["KETTER_TEST_GATE"]
_HELD = f"""
import os, time
def _held():
    open({_gate + ".there"!r}, "w").close()
    until = time.monotonic() + {_seconds or 0}
    while time.monotonic() < until and not os.path.exists({_gate!r}):
        time.sleep(0.02)
"""
_SLOW_MAIN = f"""
{_HELD}
_carry_out = Agent._carry_out
def _slowly(self, command):
    if command["op"] == {_op!r} and not command.get("undo"):
        _held()
    _carry_out(self, command)
Agent._carry_out = _slowly
"""
_SLOW_RECEIVER = f"""
{_HELD}
_read_back = Receiver._read_back
def _slowly(self):
    _held()
    _read_back(self)
Receiver._read_back = _slowly
"""
_SLOW_PUBLISH = f"""
import time
_rename = Publisher._rename
def _slowly(self, *args, **kwargs):
    _rename(self, *args, **kwargs)
    time.sleep({_seconds or 0})
Publisher._rename = _slowly
"""
_MORE = {
    "rename": {"target.publish.publisher": _SLOW_PUBLISH},
    "read_back": {"target.receiver": _SLOW_RECEIVER},
}.get(_op, {"main": _SLOW_MAIN})
_source_of = bundle.source_of


def _slow_source_of(name: str) -> bytes:
    return _source_of(name) + _MORE.get(name, "").encode()


def _slow_code_of(name: str, source: bytes) -> bytes:
    return marshal.dumps(compile(source, f"slow/{name}", "exec"))


bundle.source_of, bundle.code_of = _slow_source_of, _slow_code_of


class SlowWorker(KetterWorker):
    """The worker as it is; importing this module is what changes its agents."""
