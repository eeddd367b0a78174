"""An agent's charge: one end, one root, one place below it and one transfer, fixed by first use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.agent.context import Charge
from engine.agent.main import Agent
from engine.agent.wire import AgentError
from tests.rig.hostile import Place

#: Commands by what they name: (op, root, path), or (op, (transfer, attempt)).
Command = tuple[Any, ...]


def check(charge: Charge, command: Command) -> None:
    op, *named = command
    if len(named) == 2:
        charge.check(op, {"root": named[0], "path": named[1]})
    else:
        charge.check(op, {"transfer_id": named[0][0], "attempt": named[0][1]})


@pytest.mark.parametrize(
    ("role", "commands"),
    [
        ("source", [("inspect", "/r", "a/b"), ("open", "/r", "a/b")]),
        ("source", [("inspect", "/r", "a/file"), ("open", "/r", "a")]),
        ("source", [("inspect", "/r", "a/gone/"), ("inspect", "/r", "a")]),
        ("source", [("open", "/r", "")]),
        ("target", [("inspect", "/r", "a/"), ("stage", "/r", "a"), ("stage", "/r", "a")]),
        ("target", [("inspect", "/r", "a/file"), ("open", "/r", "a"), ("stage", "/r", "a")]),
        ("target", [("stage", "/r", "a"), ("clean", ("t", 1)), ("clean", ("t", 1))]),
        # Clearing away: a single file's staging folder lies beside it, a folder's inside.
        ("target", [("inspect", "/r", "a/b"), ("open", "/r", "a/b"), ("open", "/r", "a")]),
    ],
)
def test_an_agents_charge_allows_all_commands_for_one_place_and_transfer(
    role: str, commands: list[Command]
) -> None:
    charge = Charge(role)
    for command in commands:
        check(charge, command)


def test_an_agents_charge_allows_the_real_path_that_a_symlink_leads_to() -> None:
    charge = Charge("source")
    check(charge, ("inspect", "/r", "link"))
    charge.found("real/place/file")

    check(charge, ("open", "/r", "real/place"))


@pytest.mark.parametrize(
    ("role", "commands"),
    [
        ("target", [("stage", "/r", "a"), ("stage", "/", "a")]),
        ("target", [("stage", "/r", "a"), ("stage", "/r", "b")]),
        ("target", [("stage", "/r", "a/b"), ("stage", "/r", "a")]),
        ("target", [("stage", "/r", "a/b"), ("open", "/r", "a")]),
        ("target", [("inspect", "/r", "a"), ("stage", "/r", "other")]),
        ("target", [("inspect", "/r", "a"), ("stage", "/", "a")]),
        ("target", [("inspect", "/r", "a/b"), ("inspect", "/r", "")]),
        ("target", [("inspect", "/r", "a"), ("open", "/r", "../a")]),
        ("target", [("clean", ("t", 1)), ("clean", ("u", 1))]),
        ("target", [("clean", ("t", 1)), ("clean", ("t", 2))]),
        ("source", [("open", "/r", "a"), ("open", "/", "root")]),
        ("source", [("open", "/r", "a/b"), ("open", "/r", "a")]),
        ("source", [("inspect", "/r", "a"), ("open", "/r2", "a")]),
    ],
)
def test_an_agents_charge_refuses_another_place_or_transfer(
    role: str, commands: list[Command]
) -> None:
    charge = Charge(role)
    *fine, bad = commands
    for command in fine:
        check(charge, command)

    with pytest.raises(AgentError) as caught:
        check(charge, bad)

    assert caught.value.code == "AGENT_FAILED"


# -- the same under the worker's own seal -----------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def staged_at(root: Path | str, path: str, **more: Any) -> dict[str, Any]:
    return {
        "root": str(root),
        "path": path,
        "transfer_id": "other",
        "attempt": 1,
        "options": {},
        **more,
    }


@pytest.mark.parametrize("op", ["inspect", "open", "stage"])
def test_a_target_agent_refuses_a_sealed_command_for_another_place(place: Place, op: str) -> None:
    elsewhere = {"root": "/", "path": str(place.root / "canary").lstrip("/")}
    command = {**staged_at("/", elsewhere["path"])} if op == "stage" else elsewhere
    place.take(place.command("inspect", root="/", path=str(place.root / "target").lstrip("/")))

    place.take(place.command(op, **command))

    assert place.errors() == ["AGENT_FAILED"]
    place.untouched()


@pytest.mark.parametrize(
    "op", ["scan", "send", "rate", "relay", "remove", "remove_folders", "unheard_of", "__init__"]
)
def test_a_target_agent_refuses_the_commands_of_a_source(place: Place, op: str) -> None:
    ended = place.take(place.command(op, rate=1))

    assert (ended, place.errors()) == ("EndOfStream", ["AGENT_FAILED"])
    assert "source" not in place.agent._roles
    place.untouched()


@pytest.mark.parametrize("op", ["stage", "publish", "clean", "discard", "names", "expect"])
def test_a_source_agent_refuses_the_commands_of_a_target(tmp_path: Path, op: str) -> None:
    agent = Agent("00" * 16, "source")
    said: list[dict[str, Any]] = []
    agent._context.send = lambda body, blob=b"": said.append(body)  # type: ignore[method-assign]

    agent._carry_out({"op": op, **staged_at(tmp_path, ""), "blob": b""})

    assert [body["error"][0] for body in said] == ["AGENT_FAILED"]
    assert "target" not in agent._roles
    assert list(tmp_path.iterdir()) == []
