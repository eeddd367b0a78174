"""The tables of findings fit the tests and the source; without its mend each test fails."""

from __future__ import annotations

import pytest

from tests.hostile import without_mends
from tests.hostile.findings import FINDINGS
from tests.hostile.mends import MENDS, Mend
from tests.rig.lanes import nightly
from tests.rig.project import PROJECT

EXPECTED = {*(f"H{number}" for number in range(1, 22)), "W18"}
NAMED = sorted({test for _, tests in FINDINGS.values() for test in tests})


def test_every_finding_has_tests_and_a_mend_that_can_be_taken_out() -> None:
    assert set(FINDINGS) == EXPECTED
    assert {mend.finding for mend in MENDS} == EXPECTED


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_a_finding_names_exists(named: str) -> None:
    module, _, function = named.partition("::")
    assert f"def {function}(" in (PROJECT / "tests" / f"{module}.py").read_text("utf-8")


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: f"{mend.finding}-{mend.file}")
def test_a_change_that_takes_a_mend_out_fits_the_source(mend: Mend) -> None:
    assert (PROJECT / mend.file).read_text("utf-8").count(mend.old) == 1
    module, _, function = mend.test.partition("::")
    text = (PROJECT / "tests" / module).read_text("utf-8")
    assert f"def {function.partition('[')[0]}(" in text


@pytest.mark.parametrize("finding", [nightly(finding) for finding in sorted(EXPECTED)])
def test_the_tests_of_a_finding_fail_without_its_mend(
    finding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = without_mends.main([finding])

    assert status == 0, capsys.readouterr().out
