"""Access: a way to a host; it starts an agent there, and explains why an agent ended.

An agent is any program that answers the commands of `engine.protocol.commands`. A new kind of
endpoint is a class here beside these two, and an entry in `portals.kinds`.
"""

from __future__ import annotations

import signal
import sys
from typing import Protocol

from engine import errors
from engine.connect import bundle, environment
from engine.connect.ssh import SshClient
from engine.connect.ssh_errors import SshEnding
from engine.types import Endpoint


class Access(Protocol):
    """How the worker starts one agent, and explains its end.

    `place` names the host for people. `is_remote`: the host is another machine; its Python may
    differ, and its agent ends later than the local process. `is_shared`: this way uses the
    connection of another agent's access.
    """

    place: str
    is_remote: bool

    @property
    def is_shared(self) -> bool: ...

    def command(self, token: str) -> tuple[list[str], dict[str, str]]:
        """Return command line and environment of the process that starts the agent."""
        ...

    def started(self, pid: int) -> None:
        """Record the process that was started."""
        ...

    def after_login(self) -> None:
        """Remove what only the login needed; called once the agent has introduced itself."""
        ...

    def look_after(self) -> None:
        """Keep the files of this access small; called several times a second."""
        ...

    def explain(self, status: int | None, text: str, greeted: bool) -> errors.EngineError:
        """Return why the process ended; `text` is its output before the agent's first message."""
        ...

    def explain_silence(self, seconds: float, text: str) -> errors.EngineError:
        """Return why no agent has introduced itself in that time; `text` is the output so far."""
        ...

    def dispose(self) -> None:
        """Remove the files of this access from the worker's machine."""
        ...


class LocalAccess:
    """An agent on the worker's own machine, with the worker's Python."""

    place = "this machine"
    is_remote = is_shared = False

    def command(self, token: str) -> tuple[list[str], dict[str, str]]:
        """Return the worker's Python with the bootstrap text."""
        line = [sys.executable, "-I", "-S", "-X", "utf8", "-c", bundle.bootstrap(token)]
        return line, environment.of_agent()

    def started(self, pid: int) -> None:
        """Do nothing: nothing asks for it."""

    def after_login(self) -> None:
        """Do nothing: there is no login."""

    def look_after(self) -> None:
        """Do nothing: there are no files."""

    def explain(self, status: int | None, text: str, greeted: bool) -> errors.EngineError:
        """Return AgentLost if a signal ended the agent, else AgentFailed with its output."""
        if status is not None and status < 0:
            name = signal.Signals(-status).name
            return errors.AgentLost(f"the agent on {self.place} was ended by {name}")
        shown = text.strip()[-500:] or f"status {status}"
        return errors.AgentFailed(f"the agent on {self.place} ended: {shown}")

    def explain_silence(self, seconds: float, text: str) -> errors.EngineError:
        """Return HostUnreachable."""
        return errors.HostUnreachable(f"{self.place} did not answer in {seconds:.0f} s")

    def dispose(self) -> None:
        """Do nothing: there are no files."""


class SshClientAccess:
    """An agent at the far end of an OpenSSH client."""

    is_remote = True

    def __init__(self, client: SshClient) -> None:
        self.client = client
        self.place = client.access.host

    @property
    def is_shared(self) -> bool:
        """True if the client shares another one's connection; known once `command` was called."""
        return self.client.is_shared

    def command(self, token: str) -> tuple[list[str], dict[str, str]]:
        """Return the ssh command line, with the far command that reads the agent's program."""
        line = self.client.command(bundle.remote_command(token))
        return line, self.client.environment()

    def started(self, pid: int) -> None:
        """Record the process that may ask for the password."""
        self.client.started(pid)

    def after_login(self) -> None:
        """Remove the key and the password."""
        self.client.files.remove_secrets()

    def look_after(self) -> None:
        """Keep ssh's log small."""
        self.client.files.trim_log()

    def explain(self, status: int | None, text: str, greeted: bool) -> errors.EngineError:
        """Return the error in ssh's log; or, after the greeting, that the far agent ended."""
        if not greeted:
            return SshEnding(self.client).of_start(status, text)
        if status == 255:
            return SshEnding(self.client).of_connection(text)
        return errors.ConnectionLost(f"the agent at {self.place} ended (status {status})")

    def explain_silence(self, seconds: float, text: str) -> errors.EngineError:
        """Return what the far shell said, if it let the worker in."""
        return SshEnding(self.client).of_silence(seconds, text)

    def dispose(self) -> None:
        """Remove the client's private folder."""
        self.client.files.remove()


def access_to(endpoint: Endpoint, sibling: Access | None) -> Access:
    """Return the way to an endpoint's host; over the connection of `sibling`, if possible."""
    if endpoint.ssh is None:
        return LocalAccess()
    shared = sibling.client if isinstance(sibling, SshClientAccess) else None
    return SshClientAccess(SshClient(endpoint.ssh, shared))
