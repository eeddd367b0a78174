"""No fault is forgotten: each row is some test's, and that test says which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.faults.rows import ROWS


def marked_tests() -> Iterator[tuple[int | str, str, str]]:
    """The number on each test that bears one, the test's name and its docstring."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for number in map(number_of, node.decorator_list):
                    if number is not None:
                        yield number, node.name, ast.get_docstring(node) or ""


def number_of(decorator: ast.expr) -> int | str | None:
    """The number in `@pytest.mark.fault(number)`; None if it is another decorator."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.fault":
        return None
    number: int | str = ast.literal_eval(decorator.args[0])
    return number


def test_every_row_has_its_test() -> None:
    assert {number for number, _, _ in marked_tests()} == ROWS.keys()


def test_every_test_of_a_row_says_its_sentence() -> None:
    silent = [
        name
        for number, name, text in marked_tests()
        if not text.startswith(f"Fault {number}: {ROWS[number]}.")
    ]
    assert silent == []
