"""The request to this process to shut down: a signal handler sets it, checkpoints read it."""

from __future__ import annotations

from typing import Any

#: True once this process was asked to shut down; never False again.
_requested = False


def request_shutdown(_signal: int, _frame: Any) -> None:
    """Make the run in this process give its job back at its next checkpoint; a signal handler."""
    global _requested
    _requested = True


def shutdown_requested() -> bool:
    """Whether this process has to give its job or parcel back."""
    return _requested
