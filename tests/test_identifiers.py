"""Replaced names do not come back in `engine` and `jobs`; docs/development.md lists them.

Its tables "Old names" are what is tested here: modules, classes, functions and attributes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.rig.project import PROJECT

pytestmark = pytest.mark.fast

ROOMS = ("engine", "jobs")
PAGE = (PROJECT / "docs" / "development.md").read_text("utf-8")

#: Old names of modules that say something else as well, so that another module may have them.
PLAIN_WORDS = {"archive", "cleanup", "connection", "listening", "options", "orders", "rules"}
#: Classes of a room that have an old name of the other room's by right.
ANOTHER_CLASS = {("jobs", "Place")}


def rows(heading: str) -> list[list[str]]:
    """The names in each cell of the table below a heading of the page."""
    section = PAGE.split(f"\n### {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", line) for line in lines]


MODULES = {old: new for old, *new in rows("Modules")}
CLASSES = {old: (new, path) for old, new, path in rows("Classes")}
NAMES = dict(rows("Functions and attributes"))


def files() -> list[Path]:
    """All Python files of the rooms but their migrations."""
    found = (path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py")))
    return [path for path in found if "migrations" not in path.parts]


@cache
def tree_of(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse(path.read_text("utf-8"))


def identifiers(tree: ast.AST) -> Iterator[str]:
    """The names that a module gives, imports or looks up as an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield from (node.name, node.asname or "")
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""


def classes(tree: ast.AST) -> Iterator[str]:
    """The names of a module's classes, and what it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield from (node.name, node.asname or "")


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports, in dots, and whatever else it imports from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(path: str) -> str:
    """A file's module."""
    return path.removesuffix(".py").replace("/", ".")


def room_of(path: Path) -> str:
    """The room of a file."""
    return path.relative_to(PROJECT).parts[0]


def replaced(room: str) -> set[str]:
    """Names of a room's old modules that no module or folder has now, and none may have again."""
    new = [Path(path) for paths in MODULES.values() for path in paths]
    in_use = {path.stem for path in new} | {part for path in new for part in path.parts}
    old = {Path(path).stem for path in MODULES if path.startswith(f"{room}/")}
    return old - in_use - PLAIN_WORDS


def test_the_page_has_all_tables_of_old_names():
    assert len(MODULES) > 70
    assert len(CLASSES) > 25
    assert len(NAMES) > 8
    assert {"held", "desk", "errand", "naming"} <= replaced("engine")
    assert {"life", "turns", "trail"} <= replaced("jobs")


def test_the_old_modules_are_gone_and_not_imported():
    gone = {old for old, new in MODULES.items() if old not in new}
    assert [old for old in sorted(gone) if (PROJECT / old).exists()] == []
    names = {dotted(old) for old in gone if not (PROJECT / old.removesuffix(".py")).is_dir()}
    found = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in files()
        for name in names.intersection(imported(tree_of(path)))
    ]
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_has_a_replaced_name(room):
    found = [
        str(path.relative_to(PROJECT))
        for path in files()
        if room_of(path) == room and path.stem in replaced(room)
    ]
    assert found == []


def test_the_replaced_classes_are_gone():
    found = [
        f"{path.relative_to(PROJECT)}: {name}, say {CLASSES[name][0]}"
        for path in files()
        for name in CLASSES.keys() & set(classes(tree_of(path)))
        if (room_of(path), name) not in ANOTHER_CLASS
    ]
    assert found == []


def test_the_replaced_functions_and_attributes_are_gone():
    found = [
        f"{path.relative_to(PROJECT)}: {name}, say {NAMES[name]}"
        for path in files()
        for name in NAMES.keys() & {name.lstrip("_") for name in identifiers(tree_of(path))}
    ]
    assert found == []


def test_the_new_modules_and_classes_are_where_the_page_says():
    modules = [path for new in MODULES.values() for path in new if not (PROJECT / path).is_file()]
    assert modules == []
    missing = [
        f"{path} has no {new}"
        for new, path in CLASSES.values()
        if new not in classes(tree_of(PROJECT / path))
    ]
    assert missing == []


def test_one_module_forms_the_name_of_a_staging_folder():
    users = [path for path in files() if "STAGING_SUFFIX" in set(identifiers(tree_of(path)))]
    assert [str(path.relative_to(PROJECT)) for path in users] == ["engine/agent/wire.py"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class Desk: ...", {"Desk"}),
        ("from engine.agent.context import Desk", {"Desk"}),
        ("from engine.agent import context as Desk", {"Desk"}),
        ("'a Desk'  # Desk", set()),
    ],
)
def test_the_check_of_names_finds_a_class_where_it_is_defined_or_imported(text, found):
    assert {"Desk"}.intersection(classes(ast.parse(text))) == found


@pytest.mark.parametrize(
    "text",
    ["def taste(): ...", "self.taste = 1", "call(taste=1)", "def f(taste): ...", "taste = 1"],
)
def test_the_check_of_names_finds_an_identifier_wherever_it_stands(text):
    assert "taste" in set(identifiers(ast.parse(text)))
