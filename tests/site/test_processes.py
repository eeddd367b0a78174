"""Children of the supervisor: ended when asked, found when left behind, started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from ketter_site import processes
from ketter_site.processes import Ledger
from ketter_site.supervisor import ENDING, Child, StopRequested, Supervisor, raise_on_signals

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
    deadline = time.monotonic() + 10
    while "ready" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_it_kills_a_child_that_does_not_listen(tmp_path):
    process = spawn(tmp_path, STUBBORN)
    processes.end(process, signal.SIGTERM, seconds=0.2)
    assert process.returncode == -signal.SIGKILL


def test_it_ends_what_an_earlier_run_left_behind(tmp_path):
    process = spawn(tmp_path, WAITING)
    Ledger(tmp_path / "children.json").add(process.pid)
    assert Ledger(tmp_path / "children.json").end_leftovers() == [process.pid]
    assert process.wait(1) != 0
    assert Ledger(tmp_path / "children.json").end_leftovers() == []


def test_it_can_be_read_whenever_the_supervisor_dies(tmp_path):
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


def test_it_starts_over_where_the_list_is_damaged(tmp_path):
    (tmp_path / "children.json").write_text('{"12')
    assert Ledger(tmp_path / "children.json").end_leftovers() == []
    assert not (tmp_path / "children.json").exists()


def test_it_spares_a_process_that_only_got_the_same_number(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "children.json").write_text(json.dumps({str(process.pid): "1"}))
    assert Ledger(tmp_path / "children.json").end_leftovers() == []
    assert process.poll() is None
    process.kill()
    process.wait()


def test_it_keeps_one_old_log(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "LOG_MAX_BYTES", 3)
    for text in ("first", "second"):
        processes.spawn([sys.executable, "-c", f"print('{text}')"], log=tmp_path / "log").wait()
    assert (tmp_path / "log.1").read_text() == "first\n"
    assert (tmp_path / "log").read_text() == "second\n"


def test_a_second_signal_does_not_break_into_the_end(tmp_path, handlers):
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


def test_a_child_has_the_time_that_a_worker_may_take_to_give_its_job_back(tmp_path, handlers):
    supervisor = Supervisor(Ledger(tmp_path / "children.json"), lambda _: None)
    supervisor.add(Child("busy", lambda: spawn(tmp_path, BUSY)))
    supervisor.stop()
    assert supervisor.children[0].process.returncode == 7


def test_it_starts_a_crashed_child_again_later_each_time(tmp_path, monkeypatch, handlers):
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
        "again in 0.5 s",
        "again in 1 s",
        "again in 2 s",
    ]
    assert starts[2] - starts[1] > starts[1] - starts[0] > 0.4
