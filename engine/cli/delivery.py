"""ManifestFile: writes `--manifest` when the delivery stands at the target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.cli.stop import Stop
from engine.observer import SilentObserver
from engine.types import Mode, Report

#: What a line of an entry that is no folder lacks: a path has no bare quotes in JSON.
_OF_A_FOLDER = b'"kind":"d"'


class ManifestFile:
    """The engine's `Delivery` for the command line.

    The file is opened at once, so that a path that cannot be written fails before the transfer;
    it takes its place when it is whole, and until then the old one stays.
    """

    def __init__(self, path: str, mode: Mode, stop: Stop) -> None:
        self.wants_lines = bool(path)
        self._path, self._mode, self._stop = path, mode, stop
        self._observer = SilentObserver()
        #: Entries in the file, without folders; -1 if it was not written.
        self._named = -1
        self._failed = False
        self._file = None
        if path:
            from engine.named_files import Replacement

            self._file = Replacement(path)

    def report_to(self, observer: Any) -> None:
        """Report what could not be written as an event of `observer`."""
        self._observer = observer

    def published(self) -> None:
        """Let no signal undo the delivery."""
        self._stop.published(self._mode)

    def write(self, lines: Iterator[bytes]) -> None:
        """Write the manifest; if the disk refuses, the transfer goes on without it."""
        assert self._file
        self._named = 0
        try:
            self._file.write(self._counted(lines))
        except OSError as error:
            self._failed = True
            sentence = f"the manifest {self._path} could not be written: {error.strerror}"
            sentence += "; what was transferred is not concerned"
            self._observer.event("error", "MANIFEST_NOT_WRITTEN", sentence, {})

    def settled(self) -> None:
        """Let no signal change the exit status."""
        self._stop.disarm()

    def compare(self, report: Report) -> None:
        """Report entries that were there already, and so are not in the manifest."""
        if not self.wants_lines or self._failed:
            return
        if self._named < 0:
            sentence = (
                f"{report.files_skipped} entries were there already, and nothing was proven: "
                f"{self._path} is left as it was"
            )
            self._observer.event("warning", "MANIFEST_LEFT", sentence, {})
        elif report.files + report.files_skipped > self._named:
            missing = report.files + report.files_skipped - self._named
            sentence = (
                f"{missing} entries were there already; the manifest {self._path} names only what "
                "this run has proven (with --checksum, those too)"
            )
            self._observer.event("warning", "MANIFEST_OF_A_PART", sentence, {})

    def end(self) -> None:
        """Close the file; remove what did not take its place."""
        if self._file:
            self._file.end()

    def _counted(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            self._named += _OF_A_FOLDER not in line
            yield line
