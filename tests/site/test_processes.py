"""Children of the supervisor: ended when asked, found when left behind, started again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ketter_site import processes
from ketter_site.management.commands import up
from ketter_site.processes import Ledger, Process, StartFailed
from ketter_site.supervisor import ENDING, Child, StopRequested, Supervisor, raise_on_signals
from tests.rig.needs import needs_root
from tests.rig.signals import SignalledAtItsEnd
from tests.rig.waiting import wait_until

BRIEF = "print('ready', flush=True); raise SystemExit(1)"
WAITING = "import time; print('ready', flush=True); time.sleep(60)"
BUSY = """
import signal, time
def told(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(5)
    raise SystemExit(7)
signal.signal(signal.SIGTERM, told)
print("ready", flush=True)
time.sleep(60)
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITING}"


@pytest.fixture
def handlers() -> Iterator[None]:
    """What this process does with signals is afterwards as it was."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def spawn(tmp_path, code: str) -> processes.Process:
    """A child that has printed its first line."""
    log = tmp_path / "log"
    process = processes.spawn([sys.executable, "-c", code], log=log)
    wait_until(lambda: "ready" in log.read_text(), seconds=10)
    return process


def test_end_kills_a_child_that_ignores_sigterm(tmp_path):
    process = spawn(tmp_path, STUBBORN)
    processes.end(process, signal.SIGTERM, seconds=0.2)
    assert process.returncode == -signal.SIGKILL


def test_the_ledger_ends_processes_that_an_earlier_run_left_running(tmp_path):
    process = spawn(tmp_path, WAITING)
    Ledger(tmp_path / "children.json").add(process.pid)
    assert Ledger(tmp_path / "children.json").end_leftovers() == [process.pid]
    assert process.wait(1) != 0
    assert Ledger(tmp_path / "children.json").end_leftovers() == []


def test_the_ledger_file_is_complete_at_every_moment_while_it_is_written(tmp_path):
    """Half a list would keep the next supervisor from starting at all."""
    ledger = Ledger(tmp_path / "children.json")
    ledger.add(os.getpid())

    def write() -> None:
        for _ in range(500):
            ledger.add(os.getpid())

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while writer.is_alive():
        assert list(json.loads(ledger.path.read_text())) == [str(os.getpid())]
        looks += 1
    writer.join()
    assert looks > 20


def test_the_ledger_deletes_a_damaged_file_and_ends_no_process(tmp_path):
    (tmp_path / "children.json").write_text('{"12')
    assert Ledger(tmp_path / "children.json").end_leftovers() == []
    assert not (tmp_path / "children.json").exists()


def test_the_ledger_spares_a_process_that_reuses_a_recorded_pid(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "children.json").write_text(json.dumps({str(process.pid): "1"}))
    assert Ledger(tmp_path / "children.json").end_leftovers() == []
    assert process.poll() is None
    process.kill()
    process.wait()


def test_spawn_keeps_one_old_log_when_the_log_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LOG_MAX_BYTES", 3)
    for text in ("first", "second"):
        processes.spawn([sys.executable, "-c", f"print('{text}')"], log=tmp_path / "log").wait()
    assert (tmp_path / "log.1").read_text() == "first\n"
    assert (tmp_path / "log").read_text() == "second\n"


@pytest.mark.parametrize("what", ["symlink", "pipe", "folder", "second name", "pipe that is read"])
def test_a_log_that_is_no_plain_file_is_refused_in_a_sentence(tmp_path, what):
    log, precious = tmp_path / "postgres.log", tmp_path / "precious"
    precious.write_text("precious")
    reader = -1
    if what == "symlink":
        log.symlink_to(precious)
    elif what == "second name":
        log.hardlink_to(precious)
    elif what == "folder":
        log.mkdir()
    else:
        os.mkfifo(log)
        if what == "pipe that is read":
            reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)

    try:
        with pytest.raises(StartFailed, match=rf"the log {log} cannot be written .*move it away"):
            processes.spawn(["echo", "x"], log=log)
    finally:
        if reader >= 0:
            os.close(reader)

    assert precious.read_text() == "precious"


@needs_root
def test_a_log_of_another_user_is_refused(tmp_path):
    log = tmp_path / "log"
    log.touch()
    os.chown(log, 64123, 64123)

    with pytest.raises(StartFailed, match="no plain file of this user"):
        processes.open_log(log)


def test_a_log_may_be_a_device():
    processes.open_log(Path(os.devnull)).close()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_a_ready_file_that_is_no_plain_file_is_refused_and_stays(tmp_path, make):
    """Root that names /dev/null would replace it for the whole machine."""
    make(tmp_path / "x")
    before = (tmp_path / "x").stat()

    with pytest.raises(StartFailed, match="is no plain file: name another one"):
        up._write_ready_file(tmp_path / "x", {"pid": 1})

    assert (tmp_path / "x").stat() == before


@pytest.mark.parametrize("planted", ["x", "x.new"])
def test_a_ready_file_is_written_through_no_symlink(tmp_path, planted):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / planted).symlink_to("precious")

    processes.write_whole(tmp_path / "x", "text")

    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "x").read_text() == "text"
    assert not (tmp_path / "x").is_symlink()


def signalled_after(start: Callable[[], Process]) -> Callable[[], Process]:
    """A start amid which the end is requested: the child runs, and is not recorded yet."""

    def started() -> Process:
        process = start()
        signal.raise_signal(signal.SIGTERM)
        return process

    return started


def test_a_child_that_was_just_started_is_ended_with_the_others(tmp_path, handlers):
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), lambda _: None)
    child = Child("waits", signalled_after(lambda: spawn(tmp_path, WAITING)))
    raise_on_signals()
    with pytest.raises(StopRequested):
        supervisor.add(child)
    assert child.process is not None
    supervisor.stop()
    assert child.process.poll() is not None


@pytest.mark.parametrize("trouble", ["no process", "no room", "no terminal"])
def test_a_machine_in_trouble_does_not_end_the_other_children(tmp_path, monkeypatch, trouble):
    ledger, starts = Ledger(tmp_path / "children.json"), []

    def say(line: str) -> None:
        if trouble == "no terminal":
            raise BrokenPipeError

    def start() -> Process:
        starts.append(time.monotonic())
        if len(starts) == 2 and trouble == "no process":
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return spawn(tmp_path, BRIEF if len(starts) < 3 else WAITING)

    def add(pid: int) -> None:
        if len(starts) == 2 and trouble == "no room":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger, "add", add)
    supervisor = Supervisor(ledger, say)
    supervisor.add(Child("fragile", start))
    supervisor.add(Child("steady", lambda: spawn(tmp_path, WAITING)))
    deadline = time.monotonic() + 20
    while len(starts) < 3 and time.monotonic() < deadline:
        supervisor._look_after_all()
        time.sleep(0.05)

    fragile, steady = (child.process for child in supervisor.children)
    assert (len(starts), steady.poll()) == (3, None)
    supervisor.stop()
    assert fragile.returncode == steady.returncode == -signal.SIGTERM


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_comes_while_a_destructor_runs_ends_the_supervisor(tmp_path, handlers):
    """Python drops the handler's exception there: `up` went on as if nothing had been said."""
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), lambda _: None)
    supervisor.add(
        Child("waits", lambda: spawn(tmp_path, WAITING), ready=lambda _: bool(SignalledAtItsEnd()))
    )
    raise_on_signals()
    with pytest.raises(StopRequested, match="SIGTERM"):
        supervisor.watch()
    supervisor.stop()
    assert supervisor.children[0].process.poll() is not None


def test_a_second_signal_does_not_interrupt_the_shutdown(tmp_path, handlers):
    """A terminal that closes sends its signal twice, and a wrapper passes on what all have got."""
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), lambda _: None)
    supervisor.add(Child("waits", lambda: spawn(tmp_path, WAITING)))
    process = supervisor.children[0].process
    raise_on_signals()
    with pytest.raises(StopRequested):
        signal.raise_signal(signal.SIGTERM)
    for number in ENDING:
        signal.raise_signal(number)
    supervisor.stop()
    assert process.poll() is not None


def test_supervisor_stop_gives_a_busy_worker_time_to_return_its_job(tmp_path, handlers):
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), lambda _: None)
    supervisor.add(Child("busy", lambda: spawn(tmp_path, BUSY)))
    supervisor.stop()
    assert supervisor.children[0].process.returncode == 7


def test_the_supervisor_restarts_a_crashing_child_after_growing_delays(
    tmp_path, monkeypatch, handlers
):
    said: list[str] = []
    starts: list[float] = []

    def start() -> processes.Process:
        starts.append(time.monotonic())
        return processes.spawn([sys.executable, "-c", "raise SystemExit(3)"], log=tmp_path / "log")

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            raise StopRequested

    supervisor = Supervisor(Ledger(tmp_path / "children.json"), say)
    supervisor.add(Child("fragile", start))
    with pytest.raises(StopRequested):
        supervisor.watch()
    supervisor.stop()
    assert [line.split(", ")[1] for line in said] == [
        "starts again in 0.5 s",
        "starts again in 1 s",
        "starts again in 2 s",
    ]
    assert starts[2] - starts[1] > starts[1] - starts[0] > 0.4


def supervisor_of(tmp_path, code: str, ready) -> tuple[Supervisor, Child, list[str]]:
    """A supervisor of one child that runs some lines."""
    said: list[str] = []
    log = tmp_path / "log"
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), said.append)
    child = Child(
        "worker-1",
        lambda: processes.spawn([sys.executable, "-c", code], log=log),
        ready=ready,
        log=log,
    )
    supervisor.add(child)
    return supervisor, child, said


DYING = "print('listens', flush=True); raise SystemExit('no such thing')"


def test_the_supervisor_gives_up_a_child_that_was_never_ready_and_shows_its_log(tmp_path, handlers):
    supervisor, _child, said = supervisor_of(tmp_path, DYING, lambda _: False)
    with pytest.raises(StartFailed) as gave_up:
        supervisor.watch()
    supervisor.stop()
    assert "worker-1 ended 3 times and was never ready: repair the error" in str(gave_up.value)
    assert str(gave_up.value).endswith("no such thing")
    assert len(said) == 2
    assert (tmp_path / "log").read_text().count("listens") == 3


def test_the_supervisor_gives_up_a_crashing_child_while_it_waits_for_another(tmp_path, handlers):
    supervisor, _child, _said = supervisor_of(tmp_path, DYING, lambda _: False)
    waits = Child("web", lambda: spawn(tmp_path, WAITING), ready=lambda _: False)
    supervisor.add(waits)
    with pytest.raises(StartFailed, match="worker-1 ended 3 times"):
        supervisor.wait_until_ready(waits, seconds=30)
    supervisor.stop()


def test_the_supervisor_always_restarts_a_child_that_was_ready_before(
    tmp_path, monkeypatch, handlers
):
    monkeypatch.setattr("ketter_site.supervisor.BACKOFF_MAX_SECONDS", 0.01)
    ready = iter([True])
    code = "import time; time.sleep(0.5)"
    supervisor, child, said = supervisor_of(tmp_path, code, lambda _: next(ready, False))
    supervisor.wait_until_ready(child, seconds=10)

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 5:
            raise StopRequested

    supervisor.say = say
    with pytest.raises(StopRequested):
        supervisor.watch()
    supervisor.stop()


def test_the_supervisor_names_a_living_child_that_does_not_become_ready(tmp_path, handlers):
    supervisor, child, _said = supervisor_of(tmp_path, WAITING, lambda _: False)
    with pytest.raises(StartFailed, match="worker-1 is not ready: repair the error"):
        supervisor.wait_until_ready(child, seconds=1)
    supervisor.stop()
