"""Marks cases of a parametrized test for the nightly lane; see `tests/lanes.py`."""

from __future__ import annotations

from typing import Any

import pytest


def nightly(*values: Any) -> Any:
    """A case that only the nightly lane runs: the whole has others of its kind."""
    return pytest.param(*values, marks=pytest.mark.nightly)
