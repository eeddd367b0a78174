"""One installation of Ketter for the tests of the site, started by each test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site.helpers import Installation


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """An installation that has run once; `first_words` is what it said then."""
    with tempfile.TemporaryDirectory(prefix="ketter-up-", dir="/tmp") as home:
        installation = Installation(Path(home))
        installation.start()
        installation.stop()
        installation.first_words = installation.output.read_text()
        yield installation
        installation.stop()
