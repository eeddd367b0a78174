"""Keeps a few long-lived children running, and ends them all when it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from ketter_site.processes import Ledger, Process, StartFailed, end

#: What asks for the end: Ctrl-C, a service manager, a terminal that closes.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds between two looks at the children.
TICK = 0.2
#: A child that ran this long starts again at once when it dies.
SETTLED_SECONDS = 60
BACKOFF_MAX_SECONDS = 30
#: How long a child may take to finish what it does before it is pressed: a worker gives its job
#: back in that time.
PATIENCE_SECONDS = 10
#: And how long then, before it is killed.
PRESSED_SECONDS = 3


class StopRequested(BaseException):
    """Somebody asked for the end: Ctrl-C, SIGTERM, or a closed terminal."""


@dataclass
class Child:
    """A program to keep running; `start` returns once it can be used.

    Servers stand behind the others: they are ended last.
    """

    name: str
    start: Callable[[], Process]
    stop_signal: signal.Signals = signal.SIGTERM
    is_server: bool = False
    process: Process | None = field(default=None, init=False)
    started_at: float = field(default=0, init=False)
    start_at: float = field(default=0, init=False)
    crashes: int = field(default=0, init=False)


class Supervisor:
    """Starts children, starts them again after a crash, and ends them in order."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.say = say
        self.children: list[Child] = []

    def add(self, child: Child) -> None:
        """Start a child now, and keep it running from here on."""
        self.children.append(child)
        self._start(child)

    def watch(self) -> None:
        """Keep all children running until `StopRequested` is raised."""
        while True:
            for child in self.children:
                self._look_after(child)
            time.sleep(TICK)

    def stop(self) -> None:
        """End all children within seconds: first those in front, then the servers."""
        _heed_no_more()
        front = [c.process for c in self.children if c.process and not c.is_server]
        for process in front:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and any(p.poll() is None for p in front):
            time.sleep(0.05)
        # A second signal makes a worker drop the job it is at; another attempt takes it up.
        for process in front:
            end(process, signal.SIGTERM, seconds=PRESSED_SECONDS)
        for child in reversed(self.children):
            if child.is_server and child.process:
                end(child.process, child.stop_signal, seconds=20)

    def _start(self, child: Child) -> None:
        child.process = child.start()
        child.started_at = time.monotonic()
        self.ledger.add(child.process.pid)

    def _look_after(self, child: Child) -> None:
        """Notice a crash and plan the next start, or start when that is due."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                self._start_again(child)
        elif child.process.poll() is not None:
            if now - child.started_at > SETTLED_SECONDS:
                child.crashes = 0
            self._plan_start(child, f"status {child.process.returncode}")

    def _start_again(self, child: Child) -> None:
        try:
            self._start(child)
        except StartFailed as error:
            self._plan_start(child, str(error))

    def _plan_start(self, child: Child, why: str) -> None:
        """Start again after a while, a longer one each time."""
        wait = min(BACKOFF_MAX_SECONDS, 0.5 * 2**child.crashes)
        self.say(f"{child.name} ended ({why}), again in {wait:g} s")
        child.crashes += 1
        child.process, child.start_at = None, time.monotonic() + wait


def raise_on_signals() -> None:
    """Turn Ctrl-C, SIGTERM and the end of the terminal into `StopRequested`, once.

    A closed terminal sends its signal twice: the second must not break into what ends the children.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        _heed_no_more()
        raise StopRequested(signal.Signals(number).name)

    for number in ENDING:
        # Under nohup a closed terminal is to be survived.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _heed_no_more() -> None:
    for number in ENDING:
        # Not SIG_IGN: Python complains of a signal that came just before that.
        signal.signal(number, lambda _number, _frame: None)
