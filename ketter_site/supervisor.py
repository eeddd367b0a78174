"""Keeps a few long-lived children running, and ends them all when it ends."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ketter_site.processes import Ledger, Process, StartFailed, end, last_lines

#: The signals that request the end: Ctrl-C, a service manager, a terminal that closes.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds between two checks of the children.
TICK = 0.2
#: After a child has run this long, its earlier crashes count no more.
SETTLED_SECONDS = 60
BACKOFF_MAX_SECONDS = 30
#: The supervisor gives up a child that ends so often and was never ready.
STARTS_IN_VAIN = 3
#: Lines of the child's log that are shown then: the end of a traceback says what is wrong.
LINES_SHOWN = 10
#: The signal that requested the end of this process.
_received: list[signal.Signals] = []
#: True while StopRequested has to wait.
_waits = False
#: How long a child may take to end after the first signal: a worker gives its job back in that
#: time.
PATIENCE_SECONDS = 10
#: How long it may take after the second signal, before the supervisor kills it.
PRESSED_SECONDS = 3


class StopRequested(BaseException):
    """A signal requests the end: Ctrl-C, SIGTERM, or a closed terminal."""


@dataclass
class Child:
    """A program to keep running.

    `ready` is true once the started program can be used; without it, `start` returns only then.
    The other children need the servers (`is_server`), so the servers end last.
    """

    name: str
    start: Callable[[], Process]
    stop_signal: signal.Signals = signal.SIGTERM
    is_server: bool = False
    ready: Callable[[Process], bool] | None = None
    log: Path | None = None
    was_ready: bool = field(default=False, init=False)
    process: Process | None = field(default=None, init=False)
    started_at: float = field(default=0, init=False)
    start_at: float = field(default=0, init=False)
    crashes: int = field(default=0, init=False)
    in_vain: int = field(default=0, init=False)


class Supervisor:
    """Starts children, starts them again after a crash, and ends them in order."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        self.ledger = ledger
        self.say = say
        self.children: list[Child] = []

    def add(self, child: Child) -> None:
        """Start a child now; the supervisor keeps it running from here on."""
        self.children.append(child)
        self._start(child)

    def watch(self) -> None:
        """Keep all children running until a signal raises `StopRequested`.

        Raises StartFailed if a child ends STARTS_IN_VAIN times and was never ready.
        """
        while True:
            self._look_after_all()
            time.sleep(TICK)

    def wait_until_ready(self, child: Child, seconds: float) -> None:
        """Keep all children running until this one is ready.

        Raises StartFailed if it is not ready after `seconds`, or as `watch` does.
        """
        deadline = time.monotonic() + seconds
        while not child.was_ready:
            self._look_after_all()
            if time.monotonic() > deadline:
                raise StartFailed(_with_log(child, f"{child.name} is not ready"))
            time.sleep(TICK / 4)

    def stop(self) -> None:
        """End all children: first those that need the servers, then the servers."""
        _heed_no_more()
        _received.clear()
        front = [c.process for c in self.children if c.process and not c.is_server]
        for process in front:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and any(p.poll() is None for p in front):
            time.sleep(0.05)
        # The second signal makes a worker drop its job; another attempt takes the job up.
        for process in front:
            end(process, signal.SIGTERM, seconds=PRESSED_SECONDS)
        for child in reversed(self.children):
            if child.is_server and child.process:
                end(child.process, child.stop_signal, seconds=20)

    def _start(self, child: Child) -> None:
        # Else a child could run that nothing knows of. The start of a server takes longer, and
        # ends it itself.
        with contextlib.nullcontext() if child.is_server else _stop_waits():
            child.process = child.start()
        child.was_ready |= child.ready is None
        child.started_at = time.monotonic()
        self.ledger.add(child.process.pid)

    def _look_after_all(self) -> None:
        _raise_again()
        for child in self.children:
            self._look_after(child)

    def _look_after(self, child: Child) -> None:
        """Notice a crash and plan the next start, or start when that is due."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                self._start_again(child)
        elif child.process.poll() is not None:
            if now - child.started_at > SETTLED_SECONDS:
                child.crashes = 0
            child.in_vain += not child.was_ready
            if child.in_vain == STARTS_IN_VAIN:
                what = f"{child.name} ended {STARTS_IN_VAIN} times and was never ready"
                raise StartFailed(_with_log(child, what))
            self._plan_start(child, f"status {child.process.returncode}")
        elif not child.was_ready and child.ready:
            child.was_ready = child.ready(child.process)

    def _start_again(self, child: Child) -> None:
        try:
            self._start(child)
        except (StartFailed, OSError) as error:  # No process, no memory, no room on the disk.
            if child.process is not None:
                end(child.process, child.stop_signal)
            self._plan_start(child, str(error))

    def _plan_start(self, child: Child, why: str) -> None:
        """Plan the next start after a wait, which doubles with each crash."""
        wait = min(BACKOFF_MAX_SECONDS, 0.5 * 2**child.crashes)
        child.crashes += 1
        child.process, child.start_at = None, time.monotonic() + wait
        with contextlib.suppress(OSError):  # The terminal may have gone.
            self.say(f"{child.name} ended ({why}), starts again in {wait:g} s")


def _with_log(child: Child, what: str) -> str:
    """A sentence with the end of the child's log below it."""
    if child.log is None:
        return f"{what}."
    shown = last_lines(child.log, LINES_SHOWN)
    return f"{what}: repair the error at the end of {child.log}.\n{shown}"


def raise_on_signals() -> None:
    """Turn Ctrl-C, SIGTERM and the end of the terminal into `StopRequested`, once.

    A closed terminal sends its signal twice: the second must not interrupt the end of the children.
    Python drops an exception that is raised while a destructor runs; the supervisor's next look
    at its children raises it again.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        _heed_no_more()
        _received.append(signal.Signals(number))
        _raise_again()

    for number in ENDING:
        # Under nohup, Ketter survives a closed terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


@contextlib.contextmanager
def _stop_waits() -> Iterator[None]:
    """Have StopRequested raised after the block. The signals are not blocked: a child would
    inherit that.
    """
    global _waits
    _waits = True
    try:
        yield
    finally:
        _waits = False
    _raise_again()


def _raise_again() -> None:
    """Raise StopRequested if a signal came, and nothing has to be done first."""
    if _received and not _waits:
        raise StopRequested(_received[0].name)


def _heed_no_more() -> None:
    for number in ENDING:
        # Not SIG_IGN: Python prints an error for a signal that arrived just before.
        signal.signal(number, lambda _number, _frame: None)
