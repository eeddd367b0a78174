"""The engine's command line, and what is left when it or its agents are killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.__main__ import main
from engine.observer import SilentObserver
from engine.types import Phase
from tests.rig.command import agents_of, cli, finish, running
from tests.rig.signals import SignalledAtItsEnd
from tests.rig.trees import assert_equal_trees, build_small, snapshot
from tests.rig.waiting import wait_until

#: So slow that a transfer of the large tree is caught half-way.
SLOWLY = ("--bwlimit", "60M")


def test_the_command_line_reports_a_transfer_in_json_and_in_words(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 30)

    status, out, _ = finish(cli("--from", tmp_path / "a", "--to", tmp_path / "b", "--json"))
    assert status == 0
    report = json.loads(out)
    assert (report["status"], report["files"], report["verify"]) == ("done", 30, "stream")

    status, out, _ = finish(cli("--from", tmp_path / "a", "--to", tmp_path / "b"))
    assert status == 0
    assert "30 there already" in out

    status, out, _ = finish(cli("--from", tmp_path / "a", "--to", tmp_path / "c", "--dry-run"))
    assert (status, (tmp_path / "c").exists()) == (0, False)
    assert out.startswith("30 files")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["--from", "{tmp}/none", "--to", "{tmp}/b"], 1, "SOURCE_MISSING"),
        (["--from", "{tmp}/a", "--to", "{tmp}/a/b"], 2, "TARGET_OVERLAPS_SOURCE"),
        (["--from", "{tmp}/a", "--to", "ssh:/x"], 0, ""),
        (["--from", "{tmp}/a", "--to", "ssh://-oProxyCommand=x/b"], 2, "BAD_REQUEST"),
        (["--from", "{tmp}/a", "--to", "ssh://127.0.0.1:1/b"], 5, "CONNECTION_REFUSED"),
        (["--from", "{tmp}/a", "--to", "ssh://host.invalid/b"], 5, "HOST_UNREACHABLE"),
        (["--from", "{tmp}/a", "--to", "{tmp}/b", "--streams", "0"], 2, ""),
        (["--from", "{tmp}/a", "--to", "{tmp}/b", "--streams", "33"], 2, ""),
        (["--from", "{tmp}/a", "--to", "{tmp}/b", "--bwlimit", "0"], 2, ""),
        (["--from", "{tmp}/a", "--to", "{tmp}/b", "--bwlimit", "20 horses"], 2, ""),
        (["--from", "{tmp}/a"], 2, ""),
        (["--from", "", "--to", "{tmp}/b", "--mode", "move"], 2, "BAD_REQUEST"),
        (["--from", "{tmp}/a", "--to", ""], 2, "BAD_REQUEST"),
        (["--from", "{tmp}/a", "--to", "ftp://host/b"], 2, "BAD_REQUEST"),
        (["--from", "{tmp}/a", "--to", "me@host:/b"], 2, "BAD_REQUEST"),
        (["--from", "{tmp}/a", "--to", "ssh://host.invalid/b", "--ssh-config", "none"], 2, ""),
        (["--from", "{tmp}/a", "--to", "ssh://host.invalid/b", "--identity", "none"], 2, ""),
    ],
)
def test_the_exit_status_and_error_code_tell_why_a_command_failed(
    tmp_path: Path, arguments: list[str], status: int, code: str
) -> None:
    build_small(tmp_path / "a", 3)
    before = snapshot(tmp_path)
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    if filled[-1] == "ssh:/x":  # Not a URL of ours: an ordinary path.
        filled[-1] = f"{tmp_path}/ssh:/x"

    ended, _, err = finish(cli(*filled))

    assert ended == status, err
    assert err.startswith(f"{code}: ") if code else True
    if status:
        assert snapshot(tmp_path) == before


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree that takes seconds to send slowly: small files and a large sparse one."""
    build_small(tmp_path / "a", 50)
    with open(tmp_path / "a" / "large.mov", "wb") as file:
        file.truncate(256 << 20)
    return tmp_path


def midway(folder: Path) -> Callable[[], bool]:
    """Whether some of the large file has come into the staging folder."""

    def there() -> bool:
        staged = list((folder / "b").glob(".ketter-*/a1/large.mov"))
        return bool(staged) and staged[0].stat().st_size > 8 << 20

    return there


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_running_command_and_leaves_nothing_at_the_target(
    large: Path, number: int
) -> None:
    before = snapshot(large / "a")
    process = cli("--from", large / "a", "--to", large / "b", "--mode", "move", *SLOWLY)
    wait_until(midway(large))
    agents = agents_of(process.pid)

    process.send_signal(number)
    status, _, err = finish(process)

    assert (status, err.split(":")[0]) == (130, "CANCELLED")
    assert "what had arrived is removed; with --resume it stays" in err
    assert not (large / "b").exists()
    assert snapshot(large / "a") == before
    assert not any(map(running, agents))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_comes_while_a_destructor_runs_cancels_the_command(
    large: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python drops the handler's exception there."""

    def phase(_observer: object, phase: Phase) -> None:
        if phase is Phase.TRANSFER:
            SignalledAtItsEnd()

    monkeypatch.setattr(SilentObserver, "phase", phase)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = main(["--from", f"{large}/a", "--to", f"{large}/b", *SLOWLY])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    assert status == 130
    assert capsys.readouterr().err.startswith("CANCELLED")
    assert not (large / "b").exists()


def test_a_killed_command_publishes_nothing_and_the_next_run_completes_the_move(
    large: Path,
) -> None:
    before = snapshot(large / "a")
    process = cli("--from", large / "a", "--to", large / "b", "--mode", "move", *SLOWLY)
    wait_until(midway(large))
    agents = agents_of(process.pid)
    process.kill()
    process.communicate(timeout=20)

    wait_until(lambda: not any(map(running, agents)))
    assert [name[:8] for name in os.listdir(large / "b")] == [".ketter-"]
    assert snapshot(large / "a") == before
    os.truncate(large / "a" / "large.mov", 1 << 20)
    before = snapshot(large / "a")

    status, _, err = finish(cli("--from", large / "a", "--to", large / "b", "--mode", "move"))

    assert status == 0, err
    assert_equal_trees(before, large / "b")
    assert os.listdir(large / "a") == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_agent_fails_the_command_and_the_next_run_starts_over(
    large: Path, which: int
) -> None:
    before = snapshot(large / "a")
    command = ("--from", large / "a", "--to", large / "b", "--mode", "move", "--json")
    process = cli(*command, *SLOWLY)
    wait_until(midway(large))

    os.kill(agents_of(process.pid)[which], signal.SIGKILL)
    status, out, _ = finish(process)

    error = json.loads(out)
    assert (status, error["code"], error["kept"]) == (1, "AGENT_LOST", True)
    assert [name[:8] for name in os.listdir(large / "b")] == [".ketter-"]
    assert snapshot(large / "a") == before
    os.truncate(large / "a" / "large.mov", 1 << 20)
    before = snapshot(large / "a")

    status, out, _ = finish(cli(*command))

    report = json.loads(out)
    assert (status, report["bytes_resumed"]) == (0, 0)
    assert_equal_trees(before, large / "b")
    assert os.listdir(large / "a") == []


def test_a_second_command_for_a_running_transfer_fails_with_target_busy(large: Path) -> None:
    first = cli("--from", large / "a", "--to", large / "b", *SLOWLY)
    wait_until(midway(large))

    status, _, err = finish(cli("--from", large / "a", "--to", large / "b"))

    assert (status, err.split(":")[0]) == (1, "TARGET_BUSY")
    assert midway(large)()
    first.send_signal(signal.SIGINT)
    assert finish(first)[0] == 130
