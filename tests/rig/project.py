"""Where this checkout is."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def is_open_to_others() -> bool:
    """Whether other users reach the checkout: not below a home with mode 0700."""
    return all(path.stat().st_mode & 0o001 for path in (PROJECT, *PROJECT.parents))
