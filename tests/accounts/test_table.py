"""The table of docs/engine.md is the tests' own data; no row waits where no time will mend."""

from __future__ import annotations

from engine import errors
from tests.accounts import client_rows, rows
from tests.accounts.outcomes import table
from tests.rig.project import PROJECT

OUTCOMES = [
    *(row.outcome for row in rows.ROWS.values()),
    *(row.outcome for row in client_rows.ROWS.values()),
]


def test_the_page_shows_the_tables_of_accounts_and_configurations() -> None:
    text = (PROJECT / "docs" / "engine.md").read_text("utf-8")
    assert "\n".join(table()) in text, "run python -m tests.accounts.outcomes and take its lines"


def test_no_outcome_is_a_lost_line_and_each_that_ends_has_a_code_and_what_to_do() -> None:
    ended = [outcome for outcome in OUTCOMES if outcome.code]
    assert all(outcome.words and outcome.todo for outcome in ended)
    assert not {outcome.code for outcome in ended} & {"CONNECTION_LOST", "STALLED", "FAILED"}


def test_what_no_time_will_mend_needs_a_person() -> None:
    """A need of memory or processes may pass, and so may a jump host that is down."""
    waits = {outcome.code for outcome in OUTCOMES if outcome.code and outcome.passes}
    assert waits == {"HOST_TROUBLE", "CONNECTION_REFUSED"}
    assert errors.ShellFailed.retry == errors.NEEDS_PERSON
