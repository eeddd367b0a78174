"""A worker whose agents are slow on demand, so that a test can catch a job in each phase.

`KETTER_TEST_SLOW=publish=8` makes every agent take 8 s before each `publish`;
`rename` slows each single rename of one.
"""

from __future__ import annotations

import marshal
import os

from engine import bundle
from jobs.worker import KetterWorker

_op, _, _seconds = os.environ.get("KETTER_TEST_SLOW", "").partition("=")
_SLOW_MAIN = f"""
_carry_out = Agent._carry_out
def _slowly(self, command):
    if command["op"] == {_op!r}:
        time.sleep({_seconds or 0})
    _carry_out(self, command)
Agent._carry_out = _slowly
"""
_SLOW_PUBLISH = f"""
import time
_rename = Publisher._rename
def _slowly(self, source, target):
    _rename(self, source, target)
    time.sleep({_seconds or 0})
Publisher._rename = _slowly
"""
_MORE = {"publish": _SLOW_PUBLISH} if _op == "rename" else {"main": _SLOW_MAIN}
_source_of = bundle.source_of


def _slow_source_of(name: str) -> bytes:
    return _source_of(name) + _MORE.get(name, "").encode()


def _slow_code_of(name: str, source: bytes) -> bytes:
    return marshal.dumps(compile(source, f"slow/{name}", "exec"))


bundle.source_of, bundle.code_of = _slow_source_of, _slow_code_of


class SlowWorker(KetterWorker):
    """The worker as it is; importing this module is what changes its agents."""
