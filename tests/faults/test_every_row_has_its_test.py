"""No fault and no invariant is forgotten: each is some test's, and that test says which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rows import INVARIANTS, ROWS

SORTS = {"fault": ROWS, "invariant": INVARIANTS}


def marked_tests(sort: str) -> Iterator[tuple[int | str, str, str]]:
    """The number on each test that bears one of a sort, the test's name and its docstring."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for number in (number_of(one, sort) for one in node.decorator_list):
                    if number is not None:
                        yield number, node.name, " ".join((ast.get_docstring(node) or "").split())


def number_of(decorator: ast.expr, sort: str) -> int | str | None:
    """The number in `@pytest.mark.fault(number)`; None if it is another decorator."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != f"pytest.mark.{sort}":
        return None
    number: int | str = ast.literal_eval(decorator.args[0])
    return number


@pytest.mark.parametrize("sort", SORTS)
def test_every_fault_and_every_invariant_has_a_test(sort: str) -> None:
    assert {number for number, _, _ in marked_tests(sort)} == SORTS[sort].keys()


@pytest.mark.parametrize("sort", SORTS)
def test_the_docstring_of_a_marked_test_begins_with_its_fault_or_invariant(sort: str) -> None:
    silent = [
        name
        for number, name, text in marked_tests(sort)
        if not name.startswith("test_")
        or not text.startswith(f"{sort.capitalize()} {number}: {SORTS[sort][number]}.")
    ]
    assert silent == []
