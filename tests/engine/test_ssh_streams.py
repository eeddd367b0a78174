"""Several streams over ssh: sharing a connection, or with connections of their own."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Endpoint, HardLinks, Phase, SilentObserver
from engine.carry import carrier, stream_pool
from engine.connect.agent_process import AgentProcess
from engine.connect.inbox import Inbox
from engine.protocol.messages import Failed, Message
from engine.session.session import Session
from engine.session.stream import Stream
from tests.rig import sshd as rig
from tests.rig.interrupted import MIB, build_large, build_many, staged, whole
from tests.rig.observers import Listener
from tests.rig.planted_code import Plant
from tests.rig.relay import Relay
from tests.rig.sshd import Sshd
from tests.rig.transfers import Run, through
from tests.rig.trees import assert_equal_trees


@pytest.fixture(params=["shared", "own"])
def connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether further streams share the first one's connection."""
    if request.param == "own":
        monkeypatch.setattr(stream_pool, "OWN_CONNECTION", 0)
    return str(request.param)


@pytest.fixture(autouse=True)
def short_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place for helper files whose sockets may be made there; they must not stay."""
    with tempfile.TemporaryDirectory(prefix="k") as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        monkeypatch.setenv("TMPDIR", place)
        yield
        assert os.listdir(place) == []


class Watch(Listener):
    """Keeps the events, and does something when the transfer begins."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._act = act

    def phase(self, phase: Phase) -> None:
        if phase is Phase.TRANSFER:
            self._act()


def build(root: Path) -> None:
    build_many(root, 16 * MIB // (32 << 10))
    build_large(root / "z" / "large.mov", 70 * MIB)
    os.link(root / "reel_0/0/00000.dpx", root / "z" / "further")


@pytest.mark.parametrize("way", ["source", "target", "both"])
def test_three_ssh_streams_deliver_one_tree_over_shared_or_own_connections(
    tmp_path: Path, run: Run, sshd: Sshd, connections: str, way: str
) -> None:
    build(tmp_path / "a")
    ends = {
        side: Endpoint(str(tmp_path), "ab"[side == "target"], through(sshd))
        for side in (("source", "target") if way == "both" else (way,))
    }
    logins = sshd.log.read_text().count("Accepted publickey")

    report = run(streams=3, bwlimit=60 * MIB, **ends)

    assert (report.status, report.streams) == ("done", 3)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    logins = sshd.log.read_text().count("Accepted publickey") - logins
    assert logins == len(ends) * (1 if connections == "shared" else 3)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("links", HardLinks)
def test_a_transfer_completes_over_one_stream_when_the_others_are_refused(
    tmp_path: Path,
    run: Run,
    fresh_sshd: Sshd,
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    links: HardLinks,
) -> None:
    monkeypatch.setattr(stream_pool, "OWN_CONNECTION", 0)
    build(tmp_path / "a")
    far = {side: Endpoint(str(tmp_path), "ab"[side == "target"], through(fresh_sshd))}
    watch = Watch(fresh_sshd.refuse_client_key)

    report = run(watch, streams=4, bwlimit=40 * MIB, hard_links=links, **far)

    assert (report.status, report.streams) == ("done", 1)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    refused = [message for code, message, _ in watch.events if code == "STREAM_REFUSED"]
    assert len(refused) == 3
    assert "refused the user name or the credential" in refused[0]


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_stream_that_reaches_another_place_is_refused_and_the_transfer_completes(
    tmp_path: Path, run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    build(tmp_path / "a")
    welcome = Session.welcome

    def mislead(session: Session, lane: Stream) -> None:
        """As if its name had led to another machine this time."""
        kept = session.aim.source_path, session.aim.target_path
        session.aim.source_path = "none" if side == "source" else kept[0]
        session.aim.target_path = "none" if side == "target" else kept[1]
        welcome(session, lane)
        session.aim.source_path, session.aim.target_path = kept

    monkeypatch.setattr(Session, "welcome", mislead)
    watch = Watch()
    far = {side: Endpoint(str(tmp_path), "ab"[side == "target"], through(sshd))}

    report = run(watch, streams=3, bwlimit=60 * MIB, **far)

    assert (report.status, report.streams) == ("done", 1)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    refused = [message for code, message, _ in watch.events if code == "STREAM_REFUSED"]
    assert len(refused) == 2


ATTACHING_FAILS = """
import os
_open = os.open
def fails(path, flags, *args, **options):
    if flags & os.O_EXCL and args == (0o755,):
        try:
            _open("{mark}", os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            raise OSError(5, "Input/output error") from None
    return _open(path, flags, *args, **options)
os.open = fails
"""


def test_a_stream_that_fails_while_it_attaches_loses_nothing(
    tmp_path: Path, run: Run, sshd: Sshd, plant: Plant
) -> None:
    build(tmp_path / "a")
    plant(ATTACHING_FAILS.replace("{mark}", str(tmp_path / "first")))
    watch = Watch()

    report = run(watch, target=Endpoint(str(tmp_path), "b", through(sshd)), streams=3)

    assert (report.status, report.streams) == ("done", 1)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert [code for code, _, _ in watch.events].count("STREAM_REFUSED") == 2


@pytest.mark.parametrize("first", ["the source's end", "the target's refusal"])
def test_a_stream_that_is_refused_is_done_without_whichever_end_is_heard_first(
    tmp_path: Path,
    run: Run,
    sshd: Sshd,
    plant: Plant,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    """A refused target ends, its pipe breaks, and its source ends: chance orders the reports."""
    build(tmp_path / "a")
    plant(ATTACHING_FAILS.replace("{mark}", str(tmp_path / "first")))
    heard: dict[Stream, threading.Event] = {}
    order: list[str] = []
    put = Inbox.put

    def in_order(inbox: Inbox, agent: AgentProcess, message: Message | None) -> None:
        """Hold back what must come second until what must come first is there."""
        stream = streams.get(agent)
        refused = isinstance(message, Failed) and agent.is_target
        ended = message is None and not agent.is_target
        if stream is None or not (refused or ended):
            put(inbox, agent, message)
            return
        what = "the target's refusal" if refused else "the source's end"
        came = heard.setdefault(stream, threading.Event())
        if what != first:
            assert came.wait(30), f"{first} did not come"
        order.append(what)
        put(inbox, agent, message)
        if what == first:
            came.set()

    streams: dict[AgentProcess, Stream] = {}
    start = Session.start_stream

    def noted(session: Session, shared: bool) -> Stream:
        stream = start(session, shared)
        streams[stream.source] = streams[stream.target] = stream
        return stream

    monkeypatch.setattr(Inbox, "put", in_order)
    monkeypatch.setattr(Session, "start_stream", noted)
    watch = Watch()

    report = run(watch, target=Endpoint(str(tmp_path), "b", through(sshd)), streams=2)

    assert order[0] == first
    assert (report.status, report.streams) == ("done", 1)
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    assert [code for code, _, _ in watch.events].count("STREAM_REFUSED") == 1


@pytest.mark.parametrize("side", ["source", "target"])
def test_an_agent_that_is_killed_behind_ssh_is_reported_as_killed(
    tmp_path: Path, run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    build(tmp_path / "a")
    first: list[int] = []
    greet, fill = AgentProcess.greet, carrier.Carrier._fill

    def remember(link: AgentProcess) -> Any:
        hello = greet(link)
        if link.is_target == (side == "target"):
            first.append(link.pid)
        return hello

    def kill(carrier: carrier.Carrier, lane: Stream) -> None:
        fill(carrier, lane)
        if carrier.stream_count == 3 and first:
            os.kill(first.pop(), signal.SIGKILL)

    monkeypatch.setattr(AgentProcess, "greet", remember)
    monkeypatch.setattr(carrier.Carrier, "_fill", kill)
    far = {side: Endpoint(str(tmp_path), "ab"[side == "target"], through(sshd))}

    with pytest.raises(engine.ConnectionLost, match="killed"):
        run(streams=3, bwlimit=10 * MIB, **far)


def test_a_transfer_completes_when_the_server_allows_one_session_per_connection(
    tmp_path: Path, run: Run, fresh_sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = rig.server_lines
    monkeypatch.setattr(rig, "server_lines", lambda *args: ["MaxSessions 1", *lines(*args)])
    fresh_sshd._restart()
    build(tmp_path / "a")
    far = Endpoint(str(tmp_path), "b", through(fresh_sshd))

    report = run(target=far, streams=3, bwlimit=60 * MIB)

    assert report.status == "done"
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))


def test_a_transfer_does_not_wait_for_streams_that_connect_too_late(
    tmp_path: Path, run: Run, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins are sent after all else, so lanes may have been given up before the end."""
    monkeypatch.setattr(stream_pool, "OWN_CONNECTION", 0)
    build(tmp_path / "a")
    with Relay(sshd.host, sshd.port) as relay:
        far = Endpoint(str(tmp_path), "b", through(sshd)._replace(port=relay.port))

        def slow_down() -> None:
            relay.delay = 0.1

        report = run(Watch(slow_down), target=far, streams=4, hard_links=HardLinks.KEEP)

    assert report.status == "done"
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
    further, first = (tmp_path / "b" / path for path in ("z/further", "reel_0/0/00000.dpx"))
    assert further.samefile(first)


def test_the_loss_of_one_ssh_stream_ends_all_and_the_transfer_is_resumed(
    tmp_path: Path, run: Run, fresh_sshd: Sshd, connections: str
) -> None:
    build(tmp_path / "a")
    far = Endpoint(str(tmp_path), "b", through(fresh_sshd))

    class Kill(SilentObserver):
        """Ends the newest session once all are at work."""

        def checkpoint(self) -> None:
            if staged(tmp_path / "b") < 40 * MIB:
                return
            agents = [
                pid
                for pid in fresh_sshd.sessions()
                if Path(f"/proc/{pid}/comm").read_text().startswith("python")
            ]
            if len(agents) == 3:
                os.kill(max(agents), 9)

    with pytest.raises(engine.ConnectionLost) as caught:
        run(Kill(), target=far, streams=3, bwlimit=20 * MIB)

    assert caught.value.kept
    assert run(target=far, streams=3, resume=True).status == "done"
    assert_equal_trees(whole(tmp_path / "a"), whole(tmp_path / "b"))
