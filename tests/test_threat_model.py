"""docs/threat-model.md names tests that exist."""

from __future__ import annotations

import re

import pytest

from tests.rig.project import PROJECT

NAMED = sorted(
    set(re.findall(r"`((?:engine|faults|hostile|jobs|portals|site)/test_\w+(?:::test_\w+)?)`",
                   (PROJECT / "docs" / "threat-model.md").read_text("utf-8")))
)  # fmt: skip


def test_the_threat_model_names_tests() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_threat_model_names_exists(named: str) -> None:
    module, _, function = named.partition("::")
    text = (PROJECT / "tests" / f"{module}.py").read_text("utf-8")
    assert f"def {function}(" in text if function else "def test_" in text
