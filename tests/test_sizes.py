"""No module, function or class grows past what a reader can hold.

A module has 400 lines at most, a function 50, a class 15 methods and 12 attributes (names that its
methods assign on `self`). Models, admin pages, serializers and named tuples are lists of fields,
so that their classes may be of any size. What is larger stands in LARGER, with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.rig.project import PROJECT

ROOMS = ("ketter_site", "portals", "jobs", "engine", "dku", "deploy", "tests")
MODULE_LINES = 400
FUNCTION_LINES = 50
METHODS = 15
ATTRIBUTES = 12

#: How the base classes of a class end that is a list of fields.
LISTS_OF_FIELDS = ("Model", "Admin", "Serializer", "NamedTuple")

#: What is larger than the ceilings: "module" or "module: Class", and the reason.
LARGER = {
    "tests/faults/soak.py: Soak": "its attributes are the figures of the report",
    "tests/faults/soak_world.py: World": "one place for all processes and folders of a soak",
    "tests/rig/relay.py: Relay": "each knob is two methods: the test's thread's, the loop's",
    "tests/rig/sshd.py: Sshd": "one attribute and one method for each line of sshd_config in use",
}


@cache
def too_large(room: str) -> dict[str, str]:
    """What is larger in a room than the ceilings, each with a sentence that has its figures."""
    found = {}
    for path in sorted((PROJECT / room).rglob("*.py")):
        # Generated: people do not read these from top to bottom.
        if "migrations" in path.parts or "versions" in path.parts:
            continue
        text, name = path.read_text("utf-8"), str(path.relative_to(PROJECT))
        if (lines := len(text.splitlines())) > MODULE_LINES:
            found[name] = f"{name} has {lines} lines, {MODULE_LINES} at most"
        for key, sentence in large_definitions(ast.parse(text)):
            found[f"{name}: {key}"] = f"{name}: {key} has {sentence}"
    return found


def large_definitions(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The functions and classes that are too large, by name, each with what it has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield node.name, f"{lines} lines, {FUNCTION_LINES} at most"
        elif isinstance(node, ast.ClassDef) and not is_list_of_fields(node):
            methods, attributes = methods_of(node), attributes_of(node)
            if len(methods) > METHODS or len(attributes) > ATTRIBUTES:
                most = f"{METHODS} and {ATTRIBUTES} at most"
                yield node.name, f"{len(methods)} methods, {len(attributes)} attributes, {most}"


def is_list_of_fields(node: ast.ClassDef) -> bool:
    """Whether a class has a base that makes a list of fields of it."""
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return any(ast.unparse(base).endswith(LISTS_OF_FIELDS) for base in bases)


def methods_of(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a class, properties and special methods among them."""
    return [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]


def attributes_of(node: ast.ClassDef) -> set[str]:
    """The names that the methods of a class assign on `self`."""
    return {
        part.attr
        for method in methods_of(node)
        for part in ast.walk(method)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_no_module_function_or_class_above_the_size_limits(room):
    assert [text for key, text in too_large(room).items() if key not in LARGER] == []


def test_every_exception_from_the_size_limits_is_still_needed():
    found = {key for room in ROOMS for key in too_large(room)}
    assert LARGER.keys() - found == set(), "these have become small enough: remove their rows"


def class_of(methods: int, attributes: int, base: str = "") -> str:
    """The source of a class of that size."""
    assigned = "".join(f"self.a{number} = " for number in range(attributes - 1))
    lines = [
        f"class Made({base}):",
        "    def __init__(self):",
        f"        {assigned}self.last, self.last = 0, 0",
        *(f"    def m{number}(self): ..." for number in range(methods - 1)),
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (class_of(METHODS, ATTRIBUTES), []),
        (class_of(METHODS + 1, ATTRIBUTES), ["Made"]),
        (class_of(METHODS, ATTRIBUTES + 1), ["Made"]),
        (class_of(METHODS + 1, ATTRIBUTES + 1, "models.Model"), []),
        (class_of(METHODS + 1, ATTRIBUTES + 1, "Base[int]"), ["Made"]),
        ("def made():\n" + "    ...\n" * FUNCTION_LINES, ["made"]),
        ("def made():\n" + "    ...\n" * (FUNCTION_LINES - 1), []),
    ],
)
def test_the_size_check_finds_only_what_is_above_a_limit(text, found):
    assert [name for name, _ in large_definitions(ast.parse(text))] == found
