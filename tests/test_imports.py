"""Imports go one way: ketter_site, dku -> jobs -> portals -> engine -> the standard library.

Inside a room they go one way, too: no circle between its children (its modules and folders), and
in `engine` no arrow up the list LAYERS. Imports under TYPE_CHECKING and inside functions count.
`python -m tests.imports_diagram`, which has that list, draws the same arrows.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import engine
from tests.imports_diagram import LAYERS, arrows_of, circles
from tests.rig.project import PROJECT

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

#: Rooms whose children may not import each other in a circle.
WITHOUT_CIRCLES = ("dku", "engine", "jobs", "portals")
#: Modules of one folder, `__init__.py` not counted.
MOST_MODULES = {"engine": 12, "jobs": 20, "portals": 20, "ketter_site": 20}

#: What other rooms import from inside `engine`, with the reason; all else comes from `engine`.
PAST_THE_FACE = {
    "engine.errors": "the errors' three answers (`retry`) and classes, where only these are wanted",
    "engine.types": "plain data; it loads nothing of the engine but `agent.wire`",
    "engine.named_files": "DKU's reports are files that a person names, too",
    "engine.observer": "the base of observers; it loads nothing but the vocabulary",
    "engine.loans": "the words that lender and helper exchange; jobs keeps them in its rows",
    "engine.connect.bundle": "jobs.worker makes the agents' programs once, before it forks",
    "engine.phases": "jobs.worker loads it once, before it forks",
    "engine.proof.manifest": "jobs keeps manifests; jobs.worker loads it once, before it forks",
    "engine.proof.manifest_lines": "jobs.worker loads it once, before it forks",
    "engine.proof.reporter": "NAMED_FAILURES: how many failures a report names",
    "engine.share.helper": "jobs.worker loads it once, before it forks",
    "engine.share.lending": "jobs.worker loads it once, before it forks",
    "engine.transfer": "archive_is_at_risk: one judge for the engine and for a job's launch",
}


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
def test_a_room_imports_only_rooms_on_the_way_to_the_engine(room):
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


def name_of(path: Path) -> str:
    """A file's module, in dots."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """The modules that a file imports, in dots; `from a import b` gives `a.b` where that is one."""
    found = set()
    package = name_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                member = f"{module}.{alias.name}"
                found.add(member if is_module(member) else module)
    return frozenset(found)


def is_module(name: str) -> bool:
    """Whether the project has a module or folder of that name."""
    path = PROJECT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def arrows_in(room: str) -> dict[str, set[str]]:
    """Which children of a room each of its children imports."""
    arrows: dict[str, set[str]] = {}
    for path in modules(PROJECT / room):
        own = name_of(path).split(".")
        if len(own) == 1:
            continue  # The room's `__init__.py` is no child: it may import all of them.
        found = arrows.setdefault(own[1], set())
        for module in imported_modules(path):
            parts = module.split(".")
            if parts[0] == room and len(parts) > 1 and parts[1] != own[1]:
                found.add(parts[1])
    return arrows


@pytest.mark.parametrize("room", WITHOUT_CIRCLES)
def test_no_children_of_a_room_import_each_other_in_a_circle(room):
    assert [" -> ".join(circle) for circle in circles(arrows_in(room))] == []


@pytest.mark.parametrize(
    ("arrows", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b", "a"]]),
        ({"d": {"b"}, "b": {"c"}, "c": {"d", "a"}, "a": set()}, [["b", "c", "d", "b"]]),
    ],
)
def test_a_circle_is_found_once_whatever_its_length(arrows, found):
    assert list(circles(arrows)) == found


def test_every_child_of_the_engine_has_a_layer_and_imports_lower_ones_only():
    level = {child: number for number, row in enumerate(LAYERS) for child in row}
    arrows = arrows_in("engine")
    assert set(arrows) == set(level), "give each child of engine its row in LAYERS"
    upwards = [
        f"{child} imports {other}"
        for child, imported in sorted(arrows.items())
        for other in sorted(imported)
        if level[other] >= level[child]
    ]
    assert upwards == []


def test_the_diagram_of_imports_has_the_arrows_that_this_check_finds():
    pytest.importorskip(
        "grimp", reason="grimp is not installed: pip install -r requirements/dev.txt"
    )
    drawn = arrows_of(WITHOUT_CIRCLES)
    assert drawn == {room: arrows_in(room) for room in WITHOUT_CIRCLES}


@pytest.mark.parametrize("room", sorted(MOST_MODULES))
def test_a_folder_has_no_more_modules_than_the_limit_of_its_room(room):
    count: dict[Path, int] = {}
    for path in modules(PROJECT / room):
        if path.name != "__init__.py" and "migrations" not in path.parts:
            count[path.parent] = count.get(path.parent, 0) + 1
    too_full = {
        str(folder.relative_to(PROJECT)): number
        for folder, number in count.items()
        if number > MOST_MODULES[room]
    }
    assert too_full == {}


def test_other_rooms_import_the_engine_by_its_public_face():
    past = {
        module: f"{path.relative_to(PROJECT)} imports {module}"
        for room in (*sorted(ROOMS - {"engine"}), "deploy")
        for path in modules(PROJECT / room)
        for module in imported_modules(path)
        if module.startswith("engine.")
    }
    assert [past[module] for module in sorted(past.keys() - PAST_THE_FACE.keys())] == []
    assert PAST_THE_FACE.keys() - past.keys() == set(), "remove these rows: they have no use now"


def test_the_public_face_has_each_name_that_it_lists():
    assert [name for name in engine.__all__ if not hasattr(engine, name)] == []
    assert sorted(set(engine.__all__)) == engine.__all__
