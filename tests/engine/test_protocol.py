"""docs/protocol.md, the worker's replies and messages, and the agents' commands say the same."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from typing import NamedTuple, get_args

import pytest

import engine.agent
from engine.agent import wire
from engine.protocol import commands, messages
from tests.rig.project import PROJECT

pytestmark = pytest.mark.fast

PAGE = (PROJECT / "docs" / "protocol.md").read_text("utf-8")
AGENT = PROJECT / "engine" / "agent"

#: The sections of the page, and the folder of `engine/agent` that has the end's commands.
ENDS = {"Both ends": "", "A source": "source", "A target": "target"}
#: A reply to something that is no command: a parcel.
NO_COMMAND = "receive"
#: What each command takes behind its JSON, and no argument of its own.
BLOB = "blob"

NAME = re.compile(r"`(\w+)(\??)`")
CODE = re.compile(r"`([A-Z_]{4,})`")


class Command(NamedTuple):
    """A command as one of the three describes it; an optional argument ends with `?`."""

    end: str
    arguments: tuple[str, ...]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of the page, its head left out."""
    section = PAGE.split(f"# {heading}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(cell: str) -> tuple[str, ...]:
    """The names in backticks of a cell; what stands in brackets explains them."""
    return tuple(name + optional for name, optional in NAME.findall(re.sub(r"\([^)]*\)", "", cell)))


def on_the_page() -> dict[str, tuple[Command, tuple[str, ...]]]:
    """The commands of the page, each with the fields of its reply."""
    found = {}
    for heading, end in ENDS.items():
        for command, arguments, reply, _ in rows(heading):
            (op,) = re.findall(r"^`(\w+)`:", command)
            found[op] = Command(end, names(arguments)), names(reply)
    return found


def in_the_agents() -> dict[str, Command]:
    """The commands that the agents carry out: each `do_<op>` of each class below `engine.agent`."""
    found: dict[str, Command] = {}
    for module in pkgutil.walk_packages(engine.agent.__path__, "engine.agent."):
        loaded = importlib.import_module(module.name)
        folder = module.name.removeprefix("engine.agent.").partition(".")[0]
        end = folder if folder in ENDS.values() else ""
        for cls in vars(loaded).values():
            if not inspect.isclass(cls) or cls.__module__ != module.name:
                continue
            for name, method in vars(cls).items():
                if name.startswith("do_") and callable(method):
                    op = name.removeprefix("do_")
                    assert op not in found, f"{module.name}.{cls.__name__}.{name} is there twice"
                    found[op] = Command(end, arguments_of(method))
    return found


def arguments_of(method: object) -> tuple[str, ...]:
    """The arguments of a `do_<op>` method that stand in the command's JSON."""
    assert callable(method)
    _, *parameters = inspect.signature(method).parameters.values()
    return tuple(
        parameter.name + ("" if parameter.default is parameter.empty else "?")
        for parameter in parameters
        if parameter.name != BLOB
    )


def fields_of_reply(op: str) -> tuple[str, ...]:
    """The fields of the class that reads the reply to a command."""
    reply = commands.COMMANDS[op].read.__self__  # type: ignore[attr-defined]
    return tuple(reply._fields)


def test_the_protocol_page_lists_the_commands_and_arguments_of_the_agents():
    page = {op: command for op, (command, _) in on_the_page().items()}
    assert page.pop(NO_COMMAND) == Command("target", ())
    assert page == in_the_agents()


def test_the_protocol_page_lists_the_commands_that_the_worker_knows():
    assert on_the_page().keys() == commands.COMMANDS.keys()


def test_the_agents_implement_exactly_the_commands_that_the_worker_knows():
    assert in_the_agents().keys() | {NO_COMMAND} == commands.COMMANDS.keys()


@pytest.mark.parametrize("op", sorted(commands.COMMANDS))
def test_the_protocol_page_lists_the_fields_of_each_reply(op):
    _, fields = on_the_page()[op]
    assert fields == fields_of_reply(op)


def test_every_command_method_of_the_agents_takes_a_blob():
    for module in pkgutil.walk_packages(engine.agent.__path__, "engine.agent."):
        for cls in vars(importlib.import_module(module.name)).values():
            for name, method in vars(cls).items() if inspect.isclass(cls) else ():
                if name.startswith("do_"):
                    assert BLOB in inspect.signature(method).parameters, name


def test_the_protocol_page_lists_each_message_and_its_fields():
    by_class = {cls.__name__: cls for cls in get_args(messages.Message)}
    del by_class["Lost"]  # The worker's own.
    page = {cells[1].strip("`"): names(cells[2]) for cells in rows("Messages")}
    assert page == {name: cls._fields for name, cls in by_class.items()}
    assert {cells[0].strip("`") for cells in rows("Messages")} == messages.READERS.keys()


@pytest.mark.parametrize("cells", rows("Messages"), ids=lambda cells: cells[0].strip("`"))
def test_the_worker_reads_each_example_message_as_the_documented_class(cells):
    key, cls, _, _, example = (cell.strip("`") for cell in cells)
    assert key in json.loads(example)
    assert type(messages.read_message(example.encode("ascii") + b"\0" * 65)).__name__ == cls


def test_the_protocol_page_states_the_version_that_agents_speak():
    spoken = wire.MAGIC.decode("ascii").strip("\n\0")
    assert f"**Version: `{spoken}`**" in PAGE
    assert repr(wire.MAGIC)[2:-1].replace(r"\x00", r"\0") in PAGE
    assert set(re.findall(r"KETTER AGENT \d+", PAGE)) == {spoken}


def test_the_protocol_page_lists_each_frame_type_and_its_size_limit():
    page = {cells[0].strip("`"): (cells[1].strip("`"), cells[3]) for cells in rows("Frames")}
    for letter, (constant, most) in page.items():
        assert getattr(wire, constant) == letter.encode("ascii")
        limit = wire.MAX_DATA if constant == "DATA" else wire.MAX_MESSAGE
        assert most == f"{limit >> 20} MiB"
        wire.check_header(letter.encode("ascii"), limit)
        with pytest.raises(wire.AgentError):
            wire.check_header(letter.encode("ascii"), limit + 1)
    known = {chr(code) for code in range(128) if is_frame(bytes([code]))}
    assert page.keys() == known


def is_frame(kind: bytes) -> bool:
    """Whether the wire has frames of this type."""
    try:
        wire.check_header(kind, 0)
    except wire.AgentError:
        return False
    return True


def test_the_protocol_page_names_only_error_codes_that_agents_use():
    source = "".join(path.read_text("utf-8") for path in sorted(AGENT.rglob("*.py")))
    constants = {name for name in vars(wire) if name.isupper()} | {"MAGIC"}
    codes = set(CODE.findall(PAGE)) - constants
    assert [code for code in sorted(codes) if f'"{code}"' not in source] == []
