"""Tests of bugs that are known and not mended yet."""

from __future__ import annotations

import pytest


def unmended(why: str, *, run: bool = True) -> pytest.MarkDecorator:
    """A test that fails as long as the bug is there; whoever mends it takes the mark away."""
    return pytest.mark.xfail(strict=True, reason=why, run=run)
