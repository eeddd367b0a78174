"""The agent's loop: a command comes in on stdin, its reply goes out on stderr.

The modules of one end are imported when their first command comes: the host may have to compile
each module, and that takes longer than most commands.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import threading
import time

from engine.agent import wire
from engine.agent.context import Charge, Context
from engine.agent.reader import FrameReader
from engine.agent.typed import TYPE_CHECKING
from engine.agent.wire import HEAD, JSON, MAGIC, AgentError, EndOfStream, Seal, explain

if TYPE_CHECKING:
    from typing import Any, Callable

#: Seconds between two beats, the agent's signs of life.
BEAT_SECONDS = 1.0
#: Seconds between two checks if another agent has taken this one's place.
CHECK_SECONDS = 0.2
_PIPE_BYTES = 1 << 20
#: Objects made, less those freed, between two searches for cycles. Entries come by the thousand
#: and are in no cycle; Python's default would search them at every 700 objects.
_SEARCH_CYCLES = 20_000
#: Commands that have a module of their own, so that the others load only where they are given.
_ROLES = {("target", "compare"): "compare"}
_OF_BOTH = ("inspect", "open", "stat", "hash", "sync")
#: Modules that are imported while no command comes: after a command of that end, when the other end
#: is at work. One at a time, for a command must not wait long.
_MEANWHILE = {
    "source": ("scan", ("engine.agent.source.sender",)),
    "target": (
        "inspect",
        (
            "engine.agent.target.compare",
            "engine.agent.digests",
            "engine.agent.target.receiver",
            "engine.agent.target.publish.publisher",
            "engine.agent.target.commands",
            "ctypes",
        ),
    ),
}
_NO_COMMAND = "protocol error: payload came where a command was due"


class Agent:
    """The agent at one end of a transfer: takes commands, and lets its roles carry them out.

    `role` ("source" or "target") comes with the program; commands of the other end are refused.
    """

    def __init__(self, token: str, role: str = "target") -> None:
        self._end = role
        self._charge = Charge(role)
        self._reader = FrameReader(0)
        self._token = token
        self._seal = Seal(token)
        self._context = Context()
        self._context.listen = self._listen
        self._roles: dict[str, Any] = {}
        #: Commands that came while another one was being carried out.
        self._waiting: list[dict[str, Any]] = []
        #: Modules that later commands need.
        self._modules: list[str] = []

    def run(self) -> None:
        """Introduce this agent, then carry out commands until the worker closes stdin."""
        wire.write_all(2, MAGIC)
        version = "%d.%d.%d" % sys.version_info[:3]
        self._context.send({"hello": os.getpid(), "python": version, "system": sys.platform})
        self._start_beating()
        self._synchronise()
        while True:
            while self._waiting:
                self._carry_out(self._waiting.pop(0))
            while self._modules and not self._reader.has_input():
                __import__(self._modules.pop(0))
            kind, data = self._reader.frame()
            if kind == HEAD and self._end == "target":
                self._role("target").receive(self._reader, wire.decode(data, wire.MAX_HEAD))
                continue
            if kind != JSON:
                raise AgentError("AGENT_FAILED", _NO_COMMAND)
            self._carry_out(self._seal.open(data))

    def _listen(self) -> None:
        """Read a command during another one: a new rate takes effect at once, the rest waits."""
        kind, data = self._reader.frame()
        if kind != JSON:
            raise AgentError("AGENT_FAILED", _NO_COMMAND)
        command = self._seal.open(data)
        if command["op"] == "rate":
            self._carry_out(command)
        else:
            self._waiting.append(command)

    def fail(self, code: str, sentence: str) -> None:
        """Report an error to the worker."""
        self._context.send({"error": [code, sentence]})

    def _carry_out(self, command: dict[str, Any]) -> None:
        op = command.pop("op")
        try:
            operation = self._operation(op)
            self._charge.check(op, command)
            self._context.real_root = command.pop("real_root", self._context.real_root)
            answer = operation(**command)
            self._charge.found(answer.get("below_root"), answer.get("kind", ""))
            blob = answer.pop("blob", b"")
            self._context.send({"done": answer, "op": op}, blob)
            if op == _MEANWHILE[self._end][0]:
                self._modules = list(_MEANWHILE[self._end][1])
        except AgentError as error:
            self.fail(error.code, str(error))
        except OSError as error:
            name = error.filename if isinstance(error.filename, str) else ""
            problem = explain(error, os.path.join(self._context.real, name))
            self.fail(problem.code, str(problem))

    def _operation(self, op: str) -> Callable[..., dict[str, Any]]:
        role = self._role(_ROLES.get((self._end, op), "both" if op in _OF_BOTH else self._end))
        operation: Callable[..., dict[str, Any]] | None = getattr(role, "do_" + op, None)
        if operation is None:
            raise AgentError("AGENT_FAILED", f"the agent of a {self._end} has no command {op}")
        return operation

    def _role(self, name: str) -> Any:
        if name not in self._roles:
            if name == "source":
                from engine.agent.source.commands import Source as Role
            elif name == "compare":
                from engine.agent.target.compare import Comparison as Role  # type: ignore[assignment]
            elif name == "target":
                from engine.agent.target.commands import Target as Role  # type: ignore[assignment]
            else:
                from engine.agent.inspect import Inspector as Role  # type: ignore[assignment]
            self._roles[name] = Role(self._context)
        return self._roles[name]

    def _synchronise(self) -> None:
        """Skip what came before the token: a shell at the sender's host may print a greeting."""
        self._reader.skip_past(self._token.encode("ascii"))
        if self._reader.exactly(1) == b"+":
            self._reader.share()

    def _step_aside(self) -> None:
        """End because another agent has this one's place; report that, if the worker reads it."""
        sentence = "another agent has taken the place of this one at the target"
        report = threading.Thread(target=self.fail, args=("REPLACED", sentence), daemon=True)
        report.start()
        report.join(CHECK_SECONDS)
        os._exit(1)

    def _start_beating(self) -> None:
        work = work_clock()

        def beat() -> None:
            while True:
                time.sleep(BEAT_SECONDS)
                waits = self._reader.waits or self._context.waits()
                lives = self._context.sibling_lives()
                try:
                    self._context.send({"beat": lives, "work": work(), "waits": waits})
                except OSError:
                    os._exit(1)  # The worker has closed its end.

        def watch() -> None:
            # Not in the thread of the beats: that one blocks while the worker does not read.
            while True:
                time.sleep(CHECK_SECONDS)
                if self._context.is_over():
                    self._step_aside()

        for task in (beat, watch):
            threading.Thread(target=task, daemon=True).start()


def work_clock() -> Callable[[], int]:
    """Return a function that gives the processor time of this thread (µs), from any thread.

    It stands still while the thread hangs in a system call. Where threads have no such clock
    (macOS), it is the time of all threads.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return lambda: int(time.process_time() * 1e6)
    clock = time.pthread_getcpuclockid(threading.get_ident())
    return lambda: time.clock_gettime_ns(clock) // 1000


def find_shared() -> None:
    """Find out if other programs have this login's stdout or stderr, and so may write there.

    Only where the system shows it (Linux). An agent that no sshd has started has no login.
    """
    if "SSH_CONNECTION" not in os.environ or not os.path.isdir("/proc/self/fd"):
        return
    mine = {_stream("self", 1), _stream("self", 2)}
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != os.getpid():
            for fd in (1, 2):
                stream = _stream(pid, fd)
                if stream in mine and stream.startswith(("socket:", "pipe:")):
                    wire.shared.update((1, 2))
                    return


def _stream(pid: str, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""  # Another user's, or it has ended.


def _widen(fd: int) -> None:
    """Enlarge a pipe: ssh's are small, and each time one is full costs a wake-up."""
    import fcntl

    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)
    except OSError:
        return  # Not Linux, not a pipe, or above this user's limit.


def _of_limits(error: Exception) -> str:
    """A sentence for an error of a host that gives this account too little; else ""."""
    text = f"{type(error).__name__}: {error}"
    if "new thread" in text:
        return f"the host has too few processes, or too little memory, for this account ({text})"
    if "Memory" in text or "llocate memory" in text or "map segment" in text:
        return f"the host has too little memory for this account ({text[:200]})"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"the host lets this account open no more files ({text[:200]})"
    return ""


def main(token: str, role: str) -> None:
    """Run as the agent of an end until stdin ends; does not return."""
    os.umask(0o022)
    gc.set_threshold(_SEARCH_CYCLES)
    for fd in (0, 1):
        _widen(fd)
    find_shared()
    agent = Agent(token, role)
    try:
        agent.run()
    except (EndOfStream, BrokenPipeError):
        os._exit(0)  # All is written; an orderly end of the interpreter would only take time.
    except AgentError as error:
        agent.fail(error.code, str(error))
    except Exception as error:  # noqa: BLE001 - the last line of defence: the worker must learn of a bug
        if trouble := _of_limits(error):
            agent.fail("HOST_TROUBLE", trouble)
            os._exit(1)
        import traceback  # Not at the top: it costs every start some milliseconds.

        agent.fail("AGENT_FAILED", traceback.format_exc(limit=-6)[-450:])
    os._exit(1)
