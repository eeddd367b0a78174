"""Each case of the search where people work has tests that exist."""

from __future__ import annotations

import pytest

from tests.filesystems.findings import FINDINGS
from tests.rig.project import PROJECT

NAMED = sorted({test for _, tests in FINDINGS.values() for test in tests})


def test_every_case_has_tests() -> None:
    assert set(FINDINGS) == set(range(1, 46)) - {26, 31, 33, 34}
    assert all(tests for _, tests in FINDINGS.values())


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_a_case_names_exists(named: str) -> None:
    module, _, function = named.partition("::")
    assert f"def {function}(" in (PROJECT / "tests" / f"{module}.py").read_text("utf-8")
