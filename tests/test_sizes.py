"""No file and no function grows past what a reader can hold: 400 and 50 lines."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("ketter_site", "portals", "jobs", "engine", "dku", "deploy", "tests")
MODULE_LINES = 400
FUNCTION_LINES = 50

FILES = sorted(
    path
    for room in ROOMS
    for path in (PROJECT / room).rglob("*.py")
    # Generated: nobody reads these from top to bottom.
    if "migrations" not in path.parts and "versions" not in path.parts
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_it_stays_small(path):
    text = path.read_text("utf-8")
    too_long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert too_long == []
    assert len(text.splitlines()) <= MODULE_LINES
