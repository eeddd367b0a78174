"""SshClient: the OpenSSH client's command line, and the meaning of its error messages."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time

from engine import errors
from engine.connect import environment, ssh_options
from engine.connect.bundle import TOO_OLD
from engine.connect.child import CHECK_SECONDS
from engine.connect.ssh_files import LOG_BYTES, SshFiles
from engine.connect.ssh_options import CONNECT_SECONDS
from engine.protocol.fields import sentence
from engine.types import HostKey, SshAccess

_ASKPASS = os.path.join(os.path.dirname(__file__), "askpass.sh")
_ALIAS = "ketter-pinned"

#: Bytes of a socket's path, at most: macOS allows 104, other systems more; ssh adds 17.
_MUX_BYTES = 80

#: Pattern in ssh's log -> error, and what it says of the host; the first match decides.
_MEANINGS: tuple[tuple[str, type[errors.EngineError], str], ...] = (
    (
        "HOST IDENTIFICATION HAS CHANGED",
        errors.HostKeyChanged,
        "shows another host key than the known one; make sure that it was replaced on purpose",
    ),
    (
        "Host key verification failed|host key is known for",
        errors.HostKeyUnknown,
        "shows a host key that is not known here; compare its fingerprint and pin it",
    ),
    (
        "Permission denied|Too many authentication failures|No more authentication methods",
        errors.AuthFailed,
        "refused the user name or the credential",
    ),
    ("Connection refused", errors.ConnectionRefused, "has no SSH server at that port"),
    (
        "Could not resolve hostname|No route to host|unreachable|timed out",
        errors.HostUnreachable,
        "cannot be reached",
    ),
    (
        "Connection closed|Connection reset|Broken pipe|not responding|Disconnected",
        errors.ConnectionLost,
        "closed the connection",
    ),
)


class SshClient:
    """One ssh process to a host, with its files in a private folder.

    With `sibling`, a client that is connected to the same host, the process shares its
    connection: a further stream then takes three round trips and no key exchange.
    """

    def __init__(self, access: SshAccess, sibling: SshClient | None = None) -> None:
        self.access, self._sibling = access, sibling
        #: True if the process uses its sibling's connection.
        self.is_shared = False
        self.files = SshFiles()

    def command(self, remote: str) -> list[str]:
        """Return the command line that runs `remote` at the host."""
        access = self.access
        options = dict(ssh_options.fixed(), BatchMode="no" if access.password else "yes")
        line = [*ssh_options.command(), "-T", "-E", self.files.log]
        if access.config_file:
            line += ["-F", access.config_file]
        if access.port:
            line += ["-p", str(access.port)]
        if access.username:
            line += ["-l", access.username]
        if access.password:
            self.files.write("password", access.password)
            options["PreferredAuthentications"] = "password,keyboard-interactive"
            options["PasswordAuthentication"] = "yes"
            options["PubkeyAuthentication"] = "no"
            options["NumberOfPasswordPrompts"] = "1"
        identity = access.identity_file
        if access.private_key:
            identity = self.files.write("key", access.private_key.strip() + "\n")
        if identity:
            options["IdentityFile"] = _quoted(identity)
            options["IdentitiesOnly"] = "yes"
        options.update(self._known_hosts())
        options.update(self._sharing())
        for name, value in options.items():
            line += ["-o", f"{name}={value}"]
        return [*line, "--", access.host, remote]

    def _sharing(self) -> dict[str, str]:
        """Return the options to share a connection; never a user's own, which may end meanwhile."""
        if self._sibling and os.path.exists(self._sibling.files.socket):
            self.is_shared = True
            return {"ControlMaster": "no", "ControlPath": _quoted(self._sibling.files.socket)}
        if self._sibling or len(os.fsencode(self.files.socket)) > _MUX_BYTES:
            return {"ControlMaster": "no", "ControlPath": "none"}
        return {
            "ControlMaster": "yes",
            "ControlPath": _quoted(self.files.socket),
            "ControlPersist": "no",
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of ssh: the variables it needs, none of the installation's."""
        env = environment.of_ssh(self.access.passes)
        if self.access.password:
            env.update(
                SSH_ASKPASS=_ASKPASS,
                SSH_ASKPASS_REQUIRE="force",
                KETTER_ASKPASS_FILE=os.path.join(self.files.folder, "password"),
                DISPLAY=env.get("DISPLAY", ":0"),
            )
        return env

    def started(self, pid: int) -> None:
        """Record the process that may ask for the password: a jump host's ssh may not."""
        if self.access.password:
            self.files.write("pid", str(pid))

    def explain(self, returncode: int | None, text: str) -> errors.EngineError:
        """Return why an ssh process ended, from its log and the far host's output `text`."""
        host = self.access.host
        log = _text_of(self.files.log)
        if TOO_OLD in text:
            return errors.NoPython(f"{host} has a Python older than 3.8, too old for the agent")
        if returncode in (126, 127):
            return errors.NoPython(f"{host} has no python3 that could run the agent")
        for pattern, kind, meaning in _MEANINGS:
            if re.search(pattern, log):
                if kind is errors.HostKeyUnknown and self.access.host_key:
                    kind, meaning = _MEANINGS[0][1:]
                return kind(f"{host} {meaning}")
        # The far host wrote the text, or some of the log: a terminal may show it.
        shown = sentence(" ".join((log or text).split())[-300:])
        return errors.ConnectionLost(f"{host}: {shown or f'ssh ended with status {returncode}'}")

    def _known_hosts(self) -> dict[str, str]:
        if self.access.host_key:
            # The type and the key, nothing else: a second line would pin a second key.
            pinned = " ".join(self.access.host_key.split()[:2])
            return {
                "HostKeyAlias": _ALIAS,
                "UserKnownHostsFile": _quoted(
                    self.files.write("known_hosts", f"{_ALIAS} {pinned}\n")
                ),
                "GlobalKnownHostsFile": "/dev/null",
            }
        if self.access.known_hosts_file:
            return {
                "UserKnownHostsFile": _quoted(self.access.known_hosts_file),
                "GlobalKnownHostsFile": "/dev/null",
            }
        return {}


def _text_of(path: str) -> str:
    """Return the end of a text file; empty if there is no such file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            return file.read(LOG_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _quoted(path: str) -> str:
    """Quote a path for an option of ssh, which splits at blanks and expands percent signs."""
    return '"' + path.replace("%", "%%").replace('"', '\\"') + '"'


@errors.on_this_machine()
def fetch_host_key(access: SshAccess) -> HostKey:
    """Return the key that the host shows now, for a person to compare; nothing is trusted yet.

    The connection ends after the key exchange: there is no login, and no credential is sent.
    Raises a ConnectError if the host cannot be reached.
    """
    # ssh wants an account name; nothing logs in to it.
    bare = access._replace(
        username="nobody", password="", private_key="", identity_file="", host_key=""
    )
    client = SshClient(bare)
    known = os.path.join(client.files.folder, "known_hosts")
    line = client.command("true")
    after = line.index("ssh") + 1
    line[after:after] = [
        "-o", "StrictHostKeyChecking=accept-new",
        "-o", f"UserKnownHostsFile={_quoted(known)}",
        "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", f"HostKeyAlias={_ALIAS}",
        "-o", "HashKnownHosts=no",
        "-o", "PreferredAuthentications=none",
        "-o", "HostKeyAlgorithms=^ssh-ed25519",
    ]  # fmt: skip
    try:
        status, said = _run(client, line)
        if not os.path.exists(known):
            raise client.explain(status, said)
        pinned = _text_of(known).split()[1:3]
    except (FileNotFoundError, PermissionError) as error:
        raise errors.AgentFailed(f"{error.filename} cannot be started: {error}") from error
    finally:
        client.files.remove()
    return HostKey(" ".join(pinned), fingerprint(" ".join(pinned)))


def _run(client: SshClient, line: list[str]) -> tuple[int, str]:
    """Run ssh without a login; return its exit status and the last of what it said.

    The host writes there, too: of text without end no more than LOG_BYTES are kept. Raises
    HostUnreachable if it does not end in time.
    """
    until, said = time.monotonic() + CONNECT_SECONDS * 2, b""
    with subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=client.environment(),
    ) as process:
        assert process.stderr
        readable = select.poll()
        readable.register(process.stderr, select.POLLIN)
        try:
            while time.monotonic() < until:
                client.files.trim_log()
                if not readable.poll(CHECK_SECONDS * 1000):
                    continue
                part = os.read(process.stderr.fileno(), LOG_BYTES)
                said = (said + part)[-LOG_BYTES:]
                if not part:
                    status = process.wait(max(0.0, until - time.monotonic()))
                    return status, said.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()  # It does nothing to a process that has been waited for.
    raise errors.HostUnreachable(f"{client.access.host} cannot be reached")


def fingerprint(line: str) -> str:
    """Return a public key's `ssh-keygen -l` fingerprint; raises ValueError if it is malformed."""
    import base64
    import hashlib

    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except IndexError:
        raise ValueError("a host key is a type and a base64 text") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
