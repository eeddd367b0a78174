"""Why an export cannot be made."""

from __future__ import annotations


class ExportError(Exception):
    """The migrations cannot be exported as they are; the message says what to do."""
