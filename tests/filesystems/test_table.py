"""The table of file systems in docs/engine.md is that of the tests' data."""

from __future__ import annotations

from tests.filesystems.kinds import table
from tests.rig.project import PROJECT


def test_the_documents_table_of_file_systems_is_what_the_tests_hold() -> None:
    """`python -m tests.filesystems.kinds` prints it."""
    assert "\n".join(table()) in (PROJECT / "docs" / "engine.md").read_text("utf-8")
