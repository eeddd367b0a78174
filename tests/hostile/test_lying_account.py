"""A far account whose programs lie, over real ssh, against the real command line."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.protocol.commands import COMMANDS
from tests.hostile.account import CANCELLED_IN, MORE_MEMORY, Account, run
from tests.hostile.cases import ELSEWHERE, REPRESENTATIVE, SCENARIOS, Case, cases
from tests.hostile.worlds import World
from tests.rig.lanes import nightly
from tests.rig.waiting import wait_until

ALL = list(cases())
#: What an honest transfer of the same kind has as its peak, in KiB; measured once.
HONEST_MEMORY = 26 << 10
#: Commands by which the clean-up reaches the staging folder: a target that lies there keeps it.
_OF_THE_CLEAN_UP = {"inspect", "open", "clean", "stage"}


@pytest.fixture(scope="module")
def shared_account() -> Iterator[Account]:
    account = Account()
    with account:
        yield account


@pytest.fixture
def account(shared_account: Account) -> Iterator[Account]:
    """The account, honest at first and at last; what still runs there is the lying host's own."""
    shared_account.honest()
    yield shared_account
    shared_account.honest()
    for pid in shared_account.sessions():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not shared_account.sessions(), 10)


def test_every_command_has_a_case() -> None:
    known = {*SCENARIOS["source"], *SCENARIOS["target"], *ELSEWHERE}
    assert known == set(COMMANDS)
    assert {(case.role, case.op, case.lie) for case in ALL} >= REPRESENTATIVE


@pytest.mark.parametrize(
    "case", [case if case.is_representative else nightly(case) for case in ALL], ids=str
)
def test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else(
    account: Account, tmp_path: Path, case: Case
) -> None:
    world = World(tmp_path, case.scenario, case.mode)
    if case.scenario == "resumed":
        world.interrupt(account, case.role)
    account.tell(case.program)

    words = world.ends(account, case.role)
    ended = run(words, account.witness.exists, 0.3 if case.hangs else None, CANCELLED_IN)

    assert account.witness.exists(), f"the lie was not told: this shows nothing. {ended}"
    assert ended.memory < HONEST_MEMORY + MORE_MEMORY
    may_stay = case.scenario == "resumed" or (
        case.role == "target" and (case.op in _OF_THE_CLEAN_UP or case.hangs)
    )
    world.judge(ended, may_stay)


@pytest.mark.parametrize("role", ["source", "target"])
@pytest.mark.parametrize("scenario", sorted({*SCENARIOS["source"].values(), *SCENARIOS["target"].values()}))  # noqa: E501  # fmt: skip
@pytest.mark.nightly
def test_an_honest_account_ends_done_in_every_scenario(
    account: Account, tmp_path: Path, scenario: str, role: str
) -> None:
    """So that a case above fails for its lie alone; and what it costs the worker."""
    world = World(tmp_path, scenario, "move")
    if scenario == "resumed":
        world.interrupt(account, role)

    ended = run(world.ends(account, role), lambda: True)

    assert ended.status == 0, ended
    assert ended.memory < HONEST_MEMORY
    world.judge(ended, staging_may_stay=False)


# -- before the agent speaks ------------------------------------------------------------------

_BEATS = r"""
import os, struct, time
os.write(2, b'\n\0KETTER AGENT 2\n')
while True:
    beat = b'{"beat":true,"work":%d,"waits":false}' % (time.monotonic() * 1000000)
    os.write(2, b"J" + struct.pack(">I", len(beat)) + beat)
    time.sleep(.1)
"""
#: What stands in place of an agent, and whether only SIGTERM ends it soon.
INSTEAD = {
    "ends_with_0": ("raise SystemExit(0)", False),
    "ends_with_255": ("raise SystemExit(255)", False),
    "killed": ("import os; os.kill(os.getpid(), 9)", False),
    "text": ("import os; os.write(2, b'\\x1b[2J\\r\\nDONE: all good\\n' * 100)", False),
    "magic_alone": ("import os; os.write(2, b'\\n\\0KETTER AGENT 2\\n')", False),
    "other_version": ("import os; os.write(2, b'\\n\\0KETTER AGENT 9\\n')", False),
    "silent": ("import time; time.sleep(60)", True),
    "endless_noise": ("import os\nwhile True: os.write(2, b'noise \\x1b[2J\\r\\n' * 5000)", True),
    "endless_zeros": ("import os\nwhile True: os.write(2, bytes(60000))", True),
    "endless_payload": ("import os\nwhile True: os.write(1, bytes(60000))", True),
    "beats": (_BEATS, True),
}


@pytest.mark.parametrize("role", ["source", nightly("target")])
@pytest.mark.parametrize("mode", ["move", nightly("copy")])
@pytest.mark.parametrize(
    "name", [name if name in ("text", "endless_noise") else nightly(name) for name in INSTEAD]
)
def test_a_program_in_place_of_an_agent_fails_a_transfer_and_does_nothing_else(
    account: Account, tmp_path: Path, name: str, mode: str, role: str
) -> None:
    program, hangs = INSTEAD[name]
    world = World(tmp_path, "tree", mode)
    account.tell_instead(program)

    ended = run(world.ends(account, role), lambda: bool(account.sessions()), 1.0 if hangs else None)

    assert ended.status not in (0, 3)
    assert ended.memory < HONEST_MEMORY + MORE_MEMORY
    world.judge(ended, staging_may_stay=False)


# -- payload without end, to the other end ------------------------------------------------------

#: A sender that begins a parcel as it was asked to, and then sends one kind of frame for ever.
_FLOOD = """
if ROLE == "source":
    import engine.agent.source.commands as commands
    def do_send(self, head, blob, **_):
        frame = FRAME
        wire.write_all(1, wire.encode(wire.HEAD, head, blob))
        witness()
        while True:
            wire.write_all(1, frame * 100)
    commands.Source.do_send = do_send
"""
FLOODS = {
    "marks": 'wire.encode(wire.MARK, {"at": 0}, bytes(32))',
    "payload": "wire.HEADER.pack(wire.DATA, 1 << 16) + bytes(1 << 16)",
    "nothing": "wire.HEADER.pack(wire.DATA, 0)",
    "heads": "wire.encode(wire.HEAD, head, blob)",
    "ends": 'wire.encode(wire.END_ENTRY, {}, b"")',
    "messages": 'wire.encode(wire.JSON, {"op": "publish", "policy": "overwrite"})',
    "zeros": "bytes(1 << 16)",
}
#: Bytes at a target that the sender has not announced, at most.
MORE_AT_THE_TARGET = 64 << 20


@pytest.mark.parametrize("kind", [kind if kind == "marks" else nightly(kind) for kind in FLOODS])
def test_a_sender_without_end_is_stopped_at_its_bounds(
    account: Account, tmp_path: Path, kind: str
) -> None:
    """H15. It ends by itself, or fills no disk until a person ends it."""
    world = World(tmp_path, "file", "move")
    account.tell(_FLOOD.replace("FRAME", FLOODS[kind]))
    words = world.ends(account, "source")

    ended = run(words, account.witness.exists, 3.0 if kind == "nothing" else None)

    assert account.witness.exists()
    assert ended.status not in (0, 3), ended
    there = sum(path.lstat().st_size for path in world.target.rglob("*"))
    assert there < MORE_AT_THE_TARGET
    world.judge(ended, staging_may_stay=False)
