"""The agent's loop: a command comes in on stdin, its answer goes out on stderr.

What only one end needs is imported there, when its first command comes: each
module is compiled on the host, and that takes longer than most commands.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from typing import Any, Callable

from engine.agent import wire
from engine.agent.desk import Desk
from engine.agent.inlet import Inlet
from engine.agent.wire import HEAD, JSON, MAGIC, AgentError, EndOfStream, Seal, explain

#: Seconds between two signs of life.
BEAT_SECONDS = 3.0
#: Seconds between two looks whether another agent has taken our place.
LOOK_SECONDS = 0.2
_PIPE_BYTES = 1 << 20
#: Objects made, less those gone, between two searches for cycles: entries come by the thousand,
#: are in none, and would be searched every 700.
_SEARCH_CYCLES = 20_000
_OF_A_SOURCE = ("scan", "send", "rate", "relay", "remove", "remove_folders")
_OF_BOTH = ("look", "open", "stat", "hash", "sync")


class Agent:
    """One end of a transfer: takes commands, and has those carried out whose business they are."""

    def __init__(self, token: str) -> None:
        self._inlet = Inlet(0)
        self._token = token
        self._seal = Seal(token)
        self._desk = Desk()
        self._desk.listen = self._listen
        self._roles: dict[str, Any] = {}
        #: Commands that came while another one was at work.
        self._waiting: list[dict[str, Any]] = []

    def run(self) -> None:
        """Introduce ourselves, then do commands until the other side is gone."""
        wire.write_all(2, MAGIC)
        version = "%d.%d.%d" % sys.version_info[:3]
        self._desk.say({"hello": os.getpid(), "python": version, "system": sys.platform})
        self._start_beating()
        self._synchronise()
        while True:
            while self._waiting:
                self._carry_out(self._waiting.pop(0))
            kind, data = self._inlet.frame()
            if kind == HEAD:
                self._role("target").receive(self._inlet, wire.decode(data, wire.MAX_HEAD))
                continue
            if kind != JSON:
                raise AgentError("AGENT_FAILED", "payload came where a command was due")
            self._carry_out(self._seal.open(data))

    def _listen(self) -> None:
        """Take in a command amid another one: a new rate holds at once, the rest waits."""
        kind, data = self._inlet.frame()
        if kind != JSON:
            raise AgentError("AGENT_FAILED", "payload came where a command was due")
        command = self._seal.open(data)
        if command["op"] == "rate":
            self._carry_out(command)
        else:
            self._waiting.append(command)

    def fail(self, code: str, sentence: str) -> None:
        """Say what went wrong."""
        self._desk.say({"error": [code, sentence]})

    def _carry_out(self, command: dict[str, Any]) -> None:
        op = command.pop("op")
        try:
            answer = self._operation(op)(**command)
            blob = answer.pop("blob", b"")
            self._desk.say({"done": answer, "op": op}, blob)
        except AgentError as error:
            self.fail(error.code, str(error))
        except OSError as error:
            name = error.filename if isinstance(error.filename, str) else ""
            problem = explain(error, os.path.join(self._desk.real, name))
            self.fail(problem.code, str(problem))

    def _operation(self, op: str) -> Callable[..., dict[str, Any]]:
        role = "both" if op in _OF_BOTH else "source" if op in _OF_A_SOURCE else "target"
        operation: Callable[..., dict[str, Any]] = getattr(self._role(role), "do_" + op)
        return operation

    def _role(self, name: str) -> Any:
        if name not in self._roles:
            if name == "source":
                from engine.agent.source import Source as Role
            elif name == "target":
                from engine.agent.target import Target as Role  # type: ignore[assignment]
            else:
                from engine.agent.look import Looker as Role  # type: ignore[assignment]
            self._roles[name] = Role(self._desk)
        return self._roles[name]

    def _synchronise(self) -> None:
        """Drop what came before the token: a noisy shell at the sender's host may have spoken."""
        token, window = self._token.encode("ascii"), b""
        while window != token:
            window = (window + self._inlet.exactly(1))[-len(token) :]

    def _step_aside(self) -> None:
        """End because another agent has our place; say so, unless nobody listens."""
        sentence = "another agent has taken the place of this one at the target"
        last_words = threading.Thread(target=self.fail, args=("REPLACED", sentence), daemon=True)
        last_words.start()
        last_words.join(LOOK_SECONDS)
        os._exit(1)

    def _start_beating(self) -> None:
        def beat() -> None:
            while True:
                time.sleep(BEAT_SECONDS)
                try:
                    self._desk.say({"beat": self._desk.all_live()})
                except OSError:
                    os._exit(1)  # Nobody listens any more.

        def look() -> None:
            # Apart from the beats: those wait where nobody reads what we say.
            while True:
                time.sleep(LOOK_SECONDS)
                if self._desk.is_over():
                    self._step_aside()

        for task in (beat, look):
            threading.Thread(target=task, daemon=True).start()


def _widen(fd: int) -> None:
    """Give a pipe more room: at the end of an ssh it is small, and each fill costs a wake-up."""
    import fcntl

    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)
    except OSError:
        return  # Not Linux, not a pipe, or above this user's limit.


def main(token: str) -> None:
    """Run as the agent of this process until its input ends; does not return."""
    os.umask(0o022)
    gc.set_threshold(_SEARCH_CYCLES)
    for fd in (0, 1):
        _widen(fd)
    agent = Agent(token)
    try:
        agent.run()
    except (EndOfStream, BrokenPipeError):
        os._exit(0)  # All is written; taking the interpreter apart would only take time.
    except AgentError as error:
        agent.fail(error.code, str(error))
    except Exception:  # noqa: BLE001 - the last line of defence: the worker must learn of our bug
        import traceback  # Not at the top: it costs every start some milliseconds.

        agent.fail("AGENT_FAILED", traceback.format_exc(limit=-6))
    os._exit(1)
