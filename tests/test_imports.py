"""Imports go one way: ketter_site, dku -> jobs -> portals -> engine -> the standard library."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = {"ketter_site", "dku", "jobs", "portals", "engine"}
ALLOWED = {
    "engine": {"engine"},
    "portals": {"portals", "engine"},
    "jobs": {"jobs", "portals", "engine"},
    "dku": {"dku", "ketter_site", "jobs", "portals", "engine"},
    "ketter_site": {"ketter_site", "jobs", "portals", "engine"},
}
#: Sent to far hosts as source: it must not need anything that only we have.
AGENT = PROJECT / "engine" / "agent"


def modules(folder: Path) -> list[Path]:
    """All Python files below a folder."""
    return sorted(folder.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top-level names a file imports, wherever in it; relative imports give the file's room."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            own = path.relative_to(PROJECT).parts[0]
            yield own if node.level else (node.module or "").split(".")[0]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_it_imports_only_towards_the_engine(room):
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in modules(PROJECT / room)
        for name in imported(path)
        if name in (ROOMS | {"tests", "deploy"}) - ALLOWED[room]
    ]
    assert wrong == []


def test_the_engine_needs_nothing_but_the_standard_library():
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in modules(PROJECT / "engine")
        for name in imported(path)
        if name != "engine" and name not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_the_agent_imports_nothing_of_the_engine_around_it():
    """Its files travel alone, so even `engine.types` does not exist at the far end."""
    wrong = [
        f"{path.relative_to(PROJECT)} imports {module}"
        for path in modules(AGENT)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for module in _engine_modules(node)
        if not module.startswith("engine.agent")
    ]
    assert wrong == []


def _engine_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == "engine"]
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "engine":
        return [str(node.module)]
    return []
