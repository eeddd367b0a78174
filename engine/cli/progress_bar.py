"""ProgressBar: shows a transfer's progress in a terminal."""

from __future__ import annotations

import os
import time
from typing import Any, TextIO

from engine.cli.output import OUTPUT_MAY_FAIL
from engine.observer import SilentObserver
from engine.types import ParcelReport, Phase, Progress

#: The width of a terminal that does not say how wide it is.
_USUAL_COLUMNS = 80


def columns(out: TextIO) -> int:
    """Return the width of the terminal that is written to: another stream may be no terminal."""
    try:
        return os.get_terminal_size(out.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError):
        return _USUAL_COLUMNS


class ProgressBar(SilentObserver):
    """Draws one line, and overwrites it with each report; `end` clears it.

    It passes checkpoints, parcels and events on to `other`.
    """

    def __init__(self, out: TextIO, other: SilentObserver) -> None:
        self._out = out
        self._other = other
        self.record, self.delivery = other.record, other.delivery
        self._phase = ""
        self._began = time.monotonic()

    def checkpoint(self) -> None:
        """Stop the transfer if the other observer does."""
        self._other.checkpoint()

    def phase(self, phase: Phase) -> None:
        """Draw the name of the phase."""
        self._phase = phase.value.replace("_", " ")
        if phase is Phase.TRANSFER:
            self._began = time.monotonic()
        self._draw(f"{self._phase} ...")

    def progress(self, progress: Progress) -> None:
        """Draw the counters."""
        if not progress.bytes_total:
            return
        part = progress.bytes_done / progress.bytes_total
        seconds = time.monotonic() - self._began
        rate = progress.bytes_done / seconds if seconds > 0 else 0.0
        left = (progress.bytes_total - progress.bytes_done) / rate if rate else 0.0
        filled = int(part * 24)
        self._draw(
            f"[{'#' * filled}{'.' * (24 - filled)}] {part:4.0%}  "
            f"{progress.files_done}/{progress.files_total} files  "
            f"{rate / 1e6:.1f} MB/s  {int(left // 60)}:{int(left % 60):02d} left"
        )

    def parcel(self, parcel: ParcelReport) -> None:
        """Pass the report on."""
        self._other.parcel(parcel)

    def event(self, level: str, code: str, message: str, data: dict[str, Any]) -> None:
        """Clear the line, and pass the event on."""
        self.end()
        self._other.event(level, code, message, data)

    def end(self) -> None:
        """Clear the line for the output that follows."""
        self._write("")

    def _draw(self, text: str) -> None:
        self._write(text[: columns(self._out) - 1])

    def _write(self, text: str) -> None:
        with OUTPUT_MAY_FAIL:
            self._out.write("\r\x1b[K" + text)
            self._out.flush()
