"""Workers that get a signal at a bad moment, as it happens on a busy machine."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from jobs.worker import KetterWorker


class LateWorker(KetterWorker):
    """Handles SIGTERM so slowly that the wait for its work-horse reaches its limit."""

    def handle_warm_shutdown_request(self) -> None:
        """Begin late."""
        until = time.monotonic() + self._interval * 1.5
        while time.monotonic() < until:
            time.sleep(0.01)
        super().handle_warm_shutdown_request()


class ElsewhereWorker(KetterWorker):
    """Gets its signals in another thread, so that they do not end what the main one waits for."""

    def subscribe(self) -> None:
        """Start rq's other thread; from then on it is the only one that takes a SIGTERM."""
        super().subscribe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


class ForkingWorker(KetterWorker):
    """Gets SIGTERM while it forks its work-horse."""

    def fork_work_horse(self, *args: Any) -> None:
        """Send SIGTERM to itself once the child exists, before its id is known."""
        os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
        super().fork_work_horse(*args)
