"""The worker's ends of the agents: processes, their answers, and how they die."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from engine import bundle, errors
from engine.agent import wire
from engine.answers import answer_in
from engine.hub import CHECK_SECONDS, ENDING_SECONDS, Hub, Message
from engine.ssh import CONNECT_SECONDS, SshFiles
from engine.types import Endpoint

#: Seconds without any sign of life from an agent before it counts as stalled; agents beat every 3.
SILENCE_SECONDS = 45.0
#: Seconds an agent may take to introduce itself.
HELLO_SECONDS = CONNECT_SECONDS * 2 + 5.0
#: Answers of an agent that may wait for us; then the agent waits. The source may be done
#: with its scan before the target's host has let us in.
WAITING_ANSWERS = 32
_NOISE = 8192
#: Commands whose answers nobody waits for: they may come late.
_UNASKED = ("rate", "relay", "expect", "discard")
#: Codes that no agent may name, and those that only a target may.
_OURS, _OF_A_TARGET = ("CANCELLED", "INTERRUPTED"), ("REPLACED", "TARGET_BUSY")
#: What becomes of an agent that is missed by another one, which shares its connection.
_MISSED = ["CONNECTION_LOST", "the agent at the far end was killed"]


class Link:
    """One agent: a process on this machine or behind ssh.

    `beside` is another link to the same host, whose connection may be shared.
    """

    def __init__(
        self,
        hub: Hub,
        endpoint: Endpoint,
        stdout: int | None = None,
        beside: Link | None = None,
    ) -> None:
        self._hub = hub
        self._token = bundle.new_token()
        files = beside._ssh if beside else None
        self._beside = beside
        #: The agent's process at its host, once it has introduced itself.
        self.pid = 0
        self._ssh: SshFiles | None = SshFiles(endpoint.ssh, files) if endpoint.ssh else None
        self.place = endpoint.ssh.host if endpoint.ssh else "this machine"
        self._noise = b""
        self._heard = time.monotonic()
        self._greeted = False
        self._seal = wire.Seal(self._token)
        #: Whether its end is a message ("lost") and not the transfer's end.
        self.dispensable = False
        #: Whether it is the receiving end.
        self.is_target = stdout is None
        #: Seconds until the answer to the last `ask` came.
        self.answered_in = 0.0
        self._room = threading.Semaphore(WAITING_ANSWERS)
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        read, self.stdin = os.pipe()
        # Before it starts, so that whatever is raised now, it is ended with the others.
        hub.links.append(self)
        try:
            self._process = self._start(read, stdout)
        except (FileNotFoundError, PermissionError) as error:
            raise errors.AgentFailed(f"{error.filename} cannot be started: {error}") from error
        finally:
            os.close(read)
        self._reader = threading.Thread(target=self._read, daemon=True)
        try:
            self._reader.start()
        except RuntimeError as error:  # "can't start new thread"
            raise errors.of_this_machine(error) from error

    @property
    def shares_with(self) -> int:
        """The process of the agent whose connection this one shares; 0 if it has its own."""
        return self._beside.pid if self._beside and self._ssh and self._ssh.is_shared else 0

    def send_program(self) -> None:
        """Send the agent its program; apart from the start, so that others start meanwhile."""
        program = bundle.program(here=not self._ssh, of_target=self.is_target)
        self._write(bundle.sealed(program, self._token))

    def greet(self) -> Message:
        """Wait until the agent has introduced itself, then let it believe us."""
        hello = self._hub.wait_for(self, "hello")
        self.pid = hello["hello"]
        self.welcome()
        return hello

    def welcome(self) -> None:
        """Let an agent that has introduced itself believe us."""
        self._greeted = True
        if self._ssh:
            self._ssh.remove_secrets()
        self._write(self._token.encode("ascii"))

    def command(self, op: str, blob: bytes = b"", **arguments: Any) -> bytes:
        """A command as the agent will believe it; commands must reach it in this order."""
        return self._seal.frame({"op": op, **arguments}, blob)

    def tell(self, op: str, blob: bytes = b"", **arguments: Any) -> None:
        """Send a command; its answer comes through the hub."""
        self._write(self.command(op, blob, **arguments))

    def ask(self, op: str, blob: bytes = b"", **arguments: Any) -> Message:
        """Send a command and wait for its answer."""
        began = time.monotonic()
        self.tell(op, blob, **arguments)
        answer = self.answer(op)
        self.answered_in = time.monotonic() - began
        return answer

    def answer(self, op: str) -> Message:
        """Wait for the answer to a command that was sent before; its blob under "blob"."""
        while True:
            message = self._hub.wait_for(self, "done")
            if message.get("op") == op or message.get("op") not in _UNASKED:
                break
        if message.get("op") != op:
            raise errors.AgentFailed(f"the agent on {self.place} answered something else")
        return {**message["done"], "blob": message["blob"]}

    def said(self, code: str, sentence: str) -> errors.EngineError:
        """The error an agent names; whose the transfer is, only a target can know."""
        if code in _OURS or (code in _OF_A_TARGET and not self.is_target):
            return errors.AgentFailed(f"the agent on {self.place} says {code}: {sentence}")
        return errors.from_code(code, sentence)

    def taken(self, message: Message) -> Message:
        """A message that is being worked on, and so no longer waits."""
        self._room.release()
        return message

    def check_silence(self, now: float) -> None:
        """Raise if the agent has been silent for too long."""
        if self._closing:
            return
        silent = now - self._heard
        if not self._greeted and silent > HELLO_SECONDS:
            raise errors.HostUnreachable(f"{self.place} did not answer in {HELLO_SECONDS:.0f} s")
        if self._greeted and silent > SILENCE_SECONDS:
            raise errors.Stalled(f"{self.place} has been silent for {silent:.0f} s")

    def forgive(self) -> None:
        """Count its silence from now on: it was us who did not listen."""
        self._heard = time.monotonic()

    def cut_short(self) -> None:
        """End an ssh process, and let its far end notice by itself; or a source, at once."""
        self.send_signal(signal.SIGTERM if self._ssh or not self.is_target else None)

    def innocence(self) -> int:
        """How little likely its end is the cause of others': lines break, agents are killed."""
        if self._ssh:
            return 0
        self.has_ended(time.monotonic() + ENDING_SECONDS)
        return 1 if self._process is None or self._process.returncode else 2

    def cause_of_death(self) -> errors.EngineError:
        """Why the agent's answers ended."""
        returncode = self._process.returncode if self._process else None
        if self._process and self.has_ended(time.monotonic() + 5.0):
            returncode = self._process.returncode
        said = self._noise.decode("utf-8", "replace")
        if self._ssh and (returncode == 255 or not self._greeted):
            error = self._ssh.explain(returncode, said)
            error.of_target = self.is_target
            return error
        if self._ssh:
            return errors.ConnectionLost(f"the agent at {self.place} ended (status {returncode})")
        if returncode is not None and returncode < 0:
            name = signal.Signals(-returncode).name
            return errors.AgentLost(f"the agent on {self.place} was ended by {name}")
        told = said.strip()[-500:] or f"status {returncode}"
        return errors.AgentFailed(f"the agent on {self.place} ended: {told}")

    def hang_up(self) -> None:
        """Close the agent's input; it ends by itself where it can."""
        self._closing = True
        self._room.release()
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def send_signal(self, how: signal.Signals | None) -> None:
        """Send a signal to the process and those it started."""
        if how is not None and self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)

    def has_ended(self, until: float) -> bool:
        """Wait for the process until that moment of the monotonic clock."""
        if self._process:
            try:
                self._process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                return False
        return True

    def forget(self) -> None:
        """Leave nothing of it in this process or on the disk."""
        if self._process and self._process.stderr:
            if self._reader.ident is not None:  # Else no thread could be started.
                self._reader.join(timeout=2.0)
            # Held open by somebody else, it would keep us waiting in close.
            if not self._reader.is_alive():
                self._process.stderr.close()
        if self._ssh:
            self._ssh.remove()

    def _start(self, stdin: int, stdout: int | None) -> subprocess.Popen[bytes]:
        if self._ssh:
            line = self._ssh.command(bundle.remote_command(self._token))
            env = self._ssh.environment()
        else:
            line = [sys.executable, "-I", "-S", "-X", "utf8", "-c", bundle.bootstrap(self._token)]
            env = dict(os.environ)
        return subprocess.Popen(
            line,
            stdin=stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.PIPE,
            env=env,
            # Ctrl-C in a terminal is for us; we end the agents ourselves.
            start_new_session=True,
        )

    def _write(self, data: bytes) -> None:
        """Write without ever blocking for long, so that the checkpoint goes on being called.

        To one that was let go, be it meanwhile, nothing is written any more.
        """
        if self._closing:
            return
        view = memoryview(data)
        # Not select: a process with many files open may give us a number it cannot take.
        writable = select.poll()
        writable.register(self.stdin, select.POLLOUT)
        while view:
            # A pipe that poll calls writable takes PIPE_BUF bytes at once.
            if not writable.poll(CHECK_SECONDS * 1000):
                self._hub.check()
                if self._closing:
                    return
                continue
            try:
                view = view[os.write(self.stdin, view[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                return  # The end of its answers tells why, with more words.

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        stream = self._process.stderr
        try:
            if self._skip_noise(stream):
                while True:
                    _, body = wire.read_frame(stream)  # type: ignore[arg-type]
                    self._heard = time.monotonic()
                    message = answer_in(body)
                    if "beat" in message:
                        if not message["beat"] and self._beside:
                            self._hub.put(self._beside, {"error": _MISSED})
                        continue
                    if not self._closing:
                        self._heard = math.inf  # While it has to wait, its silence is ours.
                        self._room.acquire()
                        self._heard = time.monotonic()
                    self._hub.put(self, message)
        except (wire.EndOfStream, wire.AgentError, ValueError, RecursionError):
            pass  # Said below: the answers end here, and the process tells why.
        self._hub.put(self, None)

    def _skip_noise(self, stream: Any) -> bool:
        """Step over a banner or a shell's greeting; False if the agent never spoke."""
        said = b""
        while not said.endswith(wire.MAGIC):
            byte = stream.read(1)
            if not byte:
                self._noise = said
                return False
            said = (said + byte)[-_NOISE:]
        return True
