"""The keys of the wire: where no other user of a machine can read them, and what a sender can do.

Whoever may list a machine's processes sees every command line there; a sender's host also
writes into the pipe from which the receiver reads its program, its key and its commands.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from engine import (
    Endpoint,
    Request,
    SilentObserver,
)
from engine import (
    connection_probe as connection,
)
from engine import (
    leftovers as cleanup,
)
from engine.agent.wire import Seal
from engine.connect import bundle
from engine.connect.agent_process import AgentProcess
from engine.connect.child import Child
from engine.proof.verify import verify
from engine.session.joining import location_of
from engine.session.preflight import inspect_target, open_source
from engine.session.session import Session
from engine.session.stream import Stream
from engine.share.helper import Helper
from tests.rig.interrupted import MIB, build_large, build_many
from tests.rig.lying import THIEF
from tests.rig.sshd import Sshd
from tests.rig.transfers import Run, through

Lie = Callable[..., None]


class Spy:
    """Reads all command lines and environments of the machine as soon as an agent has spoken."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.seen: set[bytes] = set()
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    self.seen.add((process / name).read_bytes())
                except OSError:
                    continue  # It has ended, or is another user's.

    def assert_no_key(self) -> None:
        """Fail if a key was seen; and if the agents were not, so that this says something."""
        texts = b"\n".join(self.seen)
        decoded = [
            bytes.fromhex(found.decode()) for found in re.findall(rb"(?:[0-9a-f]{2}){32,}", texts)
        ]
        everything = b"\n".join((texts, *decoded))
        assert self.tokens
        for token in self.tokens:
            assert bundle.bootstrap(token).encode() in everything
            for form in (token.encode(), bytes.fromhex(token), token.encode().hex().encode()):
                assert form not in everything


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    watcher, new_token, welcome = Spy(), bundle.new_token, AgentProcess.welcome

    def noted() -> str:
        watcher.tokens.append(new_token())
        return watcher.tokens[-1]

    def looked_at(link: AgentProcess) -> None:
        watcher.look()
        welcome(link)
        watcher.look()

    monkeypatch.setattr(bundle, "new_token", noted)
    monkeypatch.setattr(AgentProcess, "welcome", looked_at)
    return watcher


def ends(tmp_path: Path, sshd: Sshd, way: str) -> dict[str, Endpoint]:
    """Both ends, those of them that `way` names through ssh."""
    access = through(sshd)
    return {
        side: Endpoint(str(tmp_path), name, access if way in (side, "both") else None)
        for side, name in (("source", "a"), ("target", "b"))
    }


@pytest.mark.parametrize("way", ["source", "target", "both", "none"])
def test_no_command_line_or_environment_shows_a_key_while_streams_run(
    tmp_path: Path, run: Run, sshd: Sshd, spy: Spy, way: str
) -> None:
    build_many(tmp_path / "a", 60)
    build_large(tmp_path / "a" / "large", 70 * MIB)

    report = run(streams=2, bwlimit=60 * MIB, **ends(tmp_path, sshd, way))

    assert (report.status, report.streams) == ("done", 2)
    assert len(spy.tokens) == 4
    spy.assert_no_key()


@pytest.mark.parametrize("way", ["target", "none"])
def test_agents_of_probe_verify_clean_up_and_helper_show_no_key(
    tmp_path: Path, sshd: Sshd, spy: Spy, way: str
) -> None:
    """The connection test, a manifest's check, clearing away, and a helper's agents."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    listed = {"path": "x", "kind": "f", "size": 1, "sha256": "0" * 64}
    (tmp_path / "manifest").write_text(json.dumps(listed))
    request = Request(**ends(tmp_path, sshd, way), transfer_id="test", resume=True)
    session = Session(request, lambda: None)
    try:
        session.connect()
        open_source(session)
        inspect_target(session)
        session.staging.make()
        helper = Helper(request, location_of(session), "h1", SilentObserver())
        helper.close()
    finally:
        session.close()
    cleanup.clean(session.staging.folder, session.staging.names, request.attempt, lambda: None)
    cleanup.discard(request)
    connection.probe(request.target)
    verify(tmp_path / "manifest", request.target)

    assert len(spy.tokens) == 2 + 2 + 1 + 1 + 1 + 1
    assert os.listdir(tmp_path / "b") == []
    spy.assert_no_key()


@pytest.mark.parametrize("way", ["source", "target", "both", "none"])
def test_a_sender_that_reads_all_command_lines_cannot_command_the_receiver(
    tmp_path: Path, run: Run, sshd: Sshd, lie: Lie, way: str
) -> None:
    planted, tried = tmp_path / "planted", tmp_path / "tried"
    build_many(tmp_path / "a", 10)
    text = THIEF.replace("PLANTED", str(planted).lstrip("/")).replace("TRIED", str(tried))
    lie(source_commands=text)

    report = run(**ends(tmp_path, sshd, way))

    assert report.status == "done"
    guesses = tried.read_text().split("\n")
    assert len(guesses) > 2  # What tells the keys' digests apart from nothing at all.
    assert "THE KEY" not in guesses
    assert not planted.exists()


# -- what is in the pipe before the receiver's program, and amid it --------------

#: A program of the sender's own: it writes where nobody may.
EVIL = """
import os
os.makedirs("PLANTED", exist_ok=True)
"""


def forged(planted: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A key, a program, a start word and a command of the sender's own making."""
    with monkeypatch.context() as patched:
        source_of, evil = bundle.source_of, EVIL.replace("PLANTED", str(planted))
        patched.setattr(
            bundle,
            "source_of",
            lambda name: source_of(name).replace(
                b"import errno\n", b"import errno\n" + evil.encode(), 1
            ),
        )
        patched.setattr(bundle, "code_of", lambda *_: b"")
        bundle.program.cache_clear()
        token = bundle.new_token()
        program = bundle.sealed(bundle.program(here=False, of_target=True), token)
        bundle.program.cache_clear()
    command = {"op": "stage", "root": "/", "path": str(planted).lstrip("/"), "transfer_id": "x"}
    frame = Seal(token).frame({**command, "attempt": 1, "options": {}})
    return program + token.encode() + frame


def ends_of(tmp_path: Path, target: str, sshd: Sshd, source: Sshd | None) -> dict[str, Endpoint]:
    """A source, through ssh or not, and the target that a test asks for."""
    return {
        "source": Endpoint(str(tmp_path), "a", through(source) if source else None),
        "target": Endpoint(str(tmp_path), "b", through(sshd) if target == "ssh" else None),
    }


@pytest.mark.parametrize("target", ["local", "ssh"])
def test_bytes_from_a_sender_before_the_receivers_program_are_dropped(
    tmp_path: Path,
    run: Run,
    fresh_sshd: Sshd,
    sshd: Sshd,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"one")
    printed = fresh_sshd.greet_with(forged(tmp_path / "planted", monkeypatch))
    greeted: list[bool] = []

    def send_programs(lane: Stream) -> None:
        lane.source.send_program()
        greeted.append(comes(printed))
        time.sleep(0.5)  # It is on its way through two processes of sshd and one of ssh.
        lane.target.send_program()

    monkeypatch.setattr(Stream, "send_programs", send_programs)

    report = run(**ends_of(tmp_path, target, sshd, fresh_sshd))

    assert (report.status, greeted) == ("done", [True])
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def comes(file: Path) -> bool:
    """Whether a file is there within some seconds."""
    until = time.monotonic() + 20.0
    while time.monotonic() < until and not file.exists():
        time.sleep(0.01)
    return file.exists()


@pytest.mark.parametrize("target", ["local", "ssh"])
def test_bytes_from_a_sender_within_the_receivers_program_end_the_transfer(
    tmp_path: Path, run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"one")
    theirs = forged(tmp_path / "planted", monkeypatch)
    meddled: list[Child] = []

    def with_theirs(child: Child, data: bytes) -> None:
        """As where a pipe has no room for the whole program."""
        child.write(data[:9000])
        # The first agent that is made is the target's.
        if not meddled:
            meddled.append(child)
            child.write(theirs)
        child.write(data[9000:])

    monkeypatch.setattr(Child, "write_at_once", with_theirs)

    with pytest.raises(engine.EngineError):
        run(**ends_of(tmp_path, target, sshd, None))

    assert len(meddled) == 1
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("target", ["local", "ssh"])
def test_bytes_from_a_sender_before_the_start_word_are_dropped(
    tmp_path: Path, run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"one")
    theirs, welcome = forged(tmp_path / "planted", monkeypatch), AgentProcess.welcome

    def with_theirs(link: AgentProcess) -> None:
        if link.is_target:
            link.child.write(theirs)
        welcome(link)

    monkeypatch.setattr(AgentProcess, "welcome", with_theirs)

    report = run(**ends_of(tmp_path, target, sshd, None))

    assert report.status == "done"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
