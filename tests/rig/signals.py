"""Signals that come at a moment that a test chooses."""

from __future__ import annotations

import signal


class SignalledAtItsEnd:
    """Gets its process a signal while Python runs its destructor."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)
