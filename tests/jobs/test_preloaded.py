"""What a worker has loaded before it forks: a work-horse imports no module of Ketter first.

Else a worker that runs while a new version is installed would mix two versions in one process.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

import engine
from tests.conftest import PROJECT

ROOMS = ("engine", "jobs", "portals")
#: Hosts run the agent; their processes are no work-horses.
ELSEWHERE = "engine.agent."

LIST = """
import sys
import django
django.setup()
import jobs.worker
print(*sys.modules, sep="\\n")
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules of the rooms that a worker has loaded when it begins to listen."""
    answer = subprocess.run(
        [sys.executable, "-c", LIST], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    names = set(answer.stdout.split())
    assert "jobs.tasks" in names
    return {name for name in names if name.partition(".")[0] in ROOMS}


def tree_of(module: str) -> ast.Module:
    """A module's syntax."""
    path = PROJECT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text("utf-8"))


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a file or a folder of the rooms."""
    path = PROJECT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(node: ast.AST) -> Iterator[str]:
    """The names that an import statement may load as modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_late(tree: ast.Module) -> Iterator[str]:
    """The modules of the rooms that a module's functions import when they run."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                for name in imported(node):
                    if name.partition(".")[0] in ROOMS and is_module(name):
                        yield name


def public_names(tree: ast.Module) -> Iterator[str]:
    """The public names of the engine that a module uses: each is loaded at its first use."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="engine"), attr=name):
                yield name


def test_no_function_imports_a_module_that_the_worker_has_not_loaded(loaded: set[str]) -> None:
    late = {
        f"{module} imports {name}"
        for module in loaded
        if not module.startswith(ELSEWHERE)
        for name in imported_late(tree_of(module))
        if name not in loaded
    }
    assert late == set()


def test_the_engines_names_that_jobs_use_are_loaded(loaded: set[str]) -> None:
    used = {name for m in loaded if m.startswith("jobs.") for name in public_names(tree_of(m))}
    late = {
        f"{module} has {name}"
        for module, names in engine._MODULES.items()
        for name in used.intersection(names)
        if f"engine.{module}" not in loaded
    }
    assert {"run", "Helper", "discard"} <= used
    assert late == set()
