"""What becomes of a transfer with an account or a configuration: rows of docs/engine.md.

`python -m tests.accounts.outcomes` prints the table; `test_table` compares it with the page.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import errors


@dataclass(frozen=True)
class Outcome:
    """It works, or it ends with a code, words that name the thing, and what a person has to do."""

    code: str = ""
    words: str = ""
    todo: str = ""

    @property
    def passes(self) -> bool:
        """True if the cause may pass by itself: a job tries again then."""
        return errors.BY_CODE[self.code].retry == errors.TRANSIENT


WORKS = Outcome()


def line(name: str, outcome: Outcome) -> str:
    """A row of the table."""
    if not outcome.code:
        return f"| {name} | works | | |"
    again = "yes" if outcome.passes else "no"
    return f"| {name} | `{outcome.code}` | {outcome.todo} | {again} |"


def table() -> list[str]:
    """The lines of both tables, as docs/engine.md has them."""
    from tests.accounts.client_rows import ROWS as CLIENT
    from tests.accounts.rows import ROWS as ACCOUNTS

    head = ["outcome | what a person does | trying again can help |", "| --- | --- | --- | --- |"]
    return [
        f"| the far account | {head[0]}",
        head[1],
        *(line(row.title, row.outcome) for row in ACCOUNTS.values()),
        "",
        f"| this side's `ssh_config` or key | {head[0]}",
        head[1],
        *(line(row.title, row.outcome) for row in CLIENT.values()),
    ]


if __name__ == "__main__":
    print("\n".join(table()))
