"""Stop: ends a transfer at a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from engine import errors
from engine.types import Mode

#: Seconds after a signal in which a further one waits for the clean-up.
CLEANING_SECONDS = 35.0


class Stop:
    """Ends the transfer at SIGINT, SIGTERM and SIGHUP.

    Python drops an exception that a handler raises while a destructor runs; then the next
    checkpoint raises it again. A further signal does not cut off the clean-up after the first
    one, which takes CLEANING_SECONDS at most.
    """

    def __init__(self, resume: bool) -> None:
        self._error = errors.Interrupted if resume else errors.Cancelled
        self._then = (
            "what had arrived stays; the same command goes on"
            if resume
            else "what had arrived is removed; with --resume it stays"
        )
        self._requested_at = 0.0
        self._is_over = False

    def arm(self) -> None:
        """Have the signals end the transfer; SIGHUP only if it is not ignored, as by nohup."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.on_signal)

    def on_signal(self, *_: Any) -> None:
        """Stop at once; a signal handler."""
        now = time.monotonic()
        if self._is_over:
            return
        if now - self._requested_at < CLEANING_SECONDS:
            with contextlib.suppress(OSError):  # Not `print`: it may be interrupted itself.
                os.write(2, b"stopping already: the target is being left in order\n")
            return
        self._requested_at = now
        self.check()

    def check(self) -> None:
        """Raise the error if a signal came."""
        if self._requested_at and not self._is_over:
            raise self._error(f"stopped by a signal or by Ctrl-C; {self._then}")

    def published(self, mode: Mode) -> None:
        """Note that all that was proven stands at the target: no signal undoes that."""
        if mode is Mode.MOVE:
            self._then = (
                "all that was proven stands at the target, a part of it still at the source: the "
                "same command removes that"
            )
        else:
            self.disarm()

    def disarm(self) -> None:
        """Ignore signals from now on: only the result is still to be shown."""
        self._is_over = True
