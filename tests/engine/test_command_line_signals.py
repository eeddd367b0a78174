"""Signals and terminals: the exit status tells of the transfer."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.__main__ import main
from engine.proof.proofs import Proofs
from engine.types import ParcelState
from tests.rig.command import agents_of, cli, finish, running
from tests.rig.project import PROJECT
from tests.rig.trees import build_small
from tests.rig.waiting import wait_until

SLOWLY = ("--bwlimit", "20M")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tree that takes seconds to send slowly."""
    build_small(tmp_path / "a", 20)
    (tmp_path / "a/large.mov").write_bytes(os.urandom(64 << 20))
    return tmp_path


def arrives(place: Path) -> None:
    wait_until(lambda: any(place.glob("b/.ketter-*/a1/large.mov")))


def test_a_closed_terminal_cancels_as_sigterm_does(large: Path) -> None:
    process = cli("--from", large / "a", "--to", large / "b", *SLOWLY)
    arrives(large)
    agents = agents_of(process.pid)

    process.send_signal(signal.SIGHUP)
    status, _, err = finish(process)

    assert (status, err.split(":")[0]) == (130, "CANCELLED")
    assert not (large / "b").exists()
    wait_until(lambda: not any(map(running, agents)))


def test_an_ignored_sighup_stays_ignored(large: Path) -> None:
    ends = ("--from", str(large / "a"), "--to", str(large / "b"))
    process = subprocess.Popen(
        [
            "sh",
            "-c",
            'trap "" HUP; exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "engine.cli",
            *ends,
            *SLOWLY,
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    arrives(large)

    process.send_signal(signal.SIGHUP)

    assert finish(process)[0] == 0
    assert (large / "b/large.mov").exists()


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("mode", "at"), [("move", "source_removed"), ("copy", "published")])
def test_a_signal_after_all_is_done_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, at: str
) -> None:
    build_small(tmp_path / "a", 5)
    report = Proofs.report_state

    def strike(self: Proofs, state: ParcelState) -> None:
        if mode == "move" and state.value == at:
            os.kill(os.getpid(), signal.SIGINT)
        report(self, state)

    monkeypatch.setattr(Proofs, "report_state", strike)
    if mode == "copy":
        from engine.session.session import Session

        close = Session.close

        def closed(self: Session, done: bool = False) -> None:
            if done:
                os.kill(os.getpid(), signal.SIGINT)
            close(self, done)

        monkeypatch.setattr(Session, "close", closed)

    words = ["--from", f"{tmp_path}/a", "--to", f"{tmp_path}/b", "--mode", mode]
    assert main(words) == 0
    assert len(list((tmp_path / "b").rglob("*.dpx"))) == 5


@pytest.mark.usefixtures("handlers")
def test_a_signal_while_the_source_is_removed_says_where_all_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_small(tmp_path / "a", 5)

    def strike(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal did not stop the removal")

    monkeypatch.setattr(Proofs, "remove_source", strike)
    assert main(["--from", f"{tmp_path}/a", "--to", f"{tmp_path}/b", "--mode", "move"]) == 130

    assert "all that was proven stands at the target" in capsys.readouterr().err
    assert len(list((tmp_path / "b").rglob("*.dpx"))) == 5


def drawn(place: Path, columns: int, **environment: str) -> bytes:
    """What a command writes to its terminal; its stdout is a pipe."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli", "--from", place / "a", "--to", place / "b"],
            cwd=PROJECT,
            env=os.environ | {"TERM": "xterm"} | environment,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            check=False,
        )
        assert done.returncode == 0
        os.set_blocking(ours, False)
        try:
            return os.read(ours, 1 << 16)
        except BlockingIOError:
            return b""
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_progress_line_fits_its_terminal_and_has_no_colours(tmp_path: Path) -> None:
    build_small(tmp_path / "a", 5)
    (tmp_path / "a/large.mov").write_bytes(os.urandom(8 << 20))

    text = drawn(tmp_path, 20, NO_COLOR="1")

    lines = text.replace(b"\r\n", b"\n").split(b"\r\x1b[K")
    assert len(lines) > 3
    assert max(map(len, lines)) == 19
    assert b"\x1b" not in b"".join(lines)


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_dumb_terminal_gets_no_control_sequences(tmp_path: Path, kind: str) -> None:
    build_small(tmp_path / "a", 5)

    assert drawn(tmp_path, 80, TERM=kind) == b""


@pytest.mark.parametrize("words", ["--help", "verify --manifest m --at b", "--from a --to c"])
@pytest.mark.parametrize("to", ["| true", ">/dev/full", ">&-", "2>&- | true"])
def test_output_that_goes_nowhere_changes_no_status(tmp_path: Path, words: str, to: str) -> None:
    build_small(tmp_path / "a", 5)
    made = ("--from", tmp_path / "a", "--to", tmp_path / "b", "--manifest", tmp_path / "m")
    assert finish(cli(*made))[0] == 0
    command = f"{sys.executable} -m engine.cli {words}"
    text = f'cd "{tmp_path}"; set -o pipefail; {command} {to}'

    done = subprocess.run(
        ["bash", "-c", text],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
