"""Real workers with failpoints: `python -m tests.faults.launcher NUMBER`.

It loads the product once and forks each worker from that, which costs nothing;
what is killed is replaced at once, as an init system does. `KETTER_FAULTS_TWEAKS`
is JSON: module attributes to replace, so that little data is enough; and under
"agents", pairs of texts to replace in the agents' program.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from types import FrameType
from typing import Any

_ending = False
_workers: set[int] = set()


def main(number: int) -> None:
    """Keep so many workers alive until told to end."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ketter_site.settings")
    import django

    django.setup()
    for name in ("jobs.tasks", "jobs.worker", "engine.phases", "jobs.management.commands.rqworker"):
        importlib.import_module(name)
    from tests.faults import killpoints

    tweak(json.loads(os.environ.get("KETTER_FAULTS_TWEAKS", "{}")))
    killpoints.install()
    signal.signal(signal.SIGTERM, _end)
    for _ in range(number):
        _workers.add(_fork())
    while _workers:
        pid, status = os.wait()
        print(f"{killpoints.ENDED} {pid} at {time.monotonic()}", flush=True)
        _workers.discard(pid)
        if not _ending and (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0):
            _workers.add(_fork())


def tweak(changes: dict[str, Any]) -> None:
    """Replace attributes of modules, and texts of the agents."""
    from django.utils import timezone

    from engine.connect import bundle

    texts = changes.pop("agents", [])
    skew = changes.pop("clock", 0)
    for name, value in changes.items():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
        setattr(importlib.import_module(module), attribute, value)
    if texts:
        source_of = bundle.source_of

        def changed(name: str) -> bytes:
            source = source_of(name)
            for old, new in texts:
                source = source.replace(old.encode(), new.encode())
            return source

        bundle.source_of = changed
    if skew:
        clock, now = time.time, timezone.now
        time.time = lambda: clock() + skew
        timezone.now = lambda: now() + timedelta(seconds=skew)


def _fork() -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(["manage.py", "rqworker"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _end(_number: int, _frame: FrameType | None) -> None:
    global _ending
    _ending = True
    for pid in _workers:
        os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]))
