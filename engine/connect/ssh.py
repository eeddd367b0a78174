"""SshClient: the OpenSSH client's command line, and a host's key as it shows it."""

from __future__ import annotations

import os

from engine import errors
from engine.connect import environment, ssh_options
from engine.connect.ssh_errors import SshEnding, run_apart, text_of
from engine.connect.ssh_files import SshFiles
from engine.connect.ssh_options import CONNECT_SECONDS
from engine.named_files import why_not_plain
from engine.types import HostKey, SshAccess

_ASKPASS = os.path.join(os.path.dirname(__file__), "askpass.sh")
_ALIAS = "ketter-pinned"

#: Bytes of a socket's path, at most: macOS allows 104, other systems more; ssh adds 17.
_MUX_BYTES = 80


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
        line += self.from_config()
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
        elif identity and os.path.exists(identity) and (why := why_not_plain(identity)):
            raise errors.AuthFailed(f"the key file for {access.host}: {why}")  # ssh would wait.
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

    def from_config(self) -> list[str]:
        """Return the words that name the configuration, if it is not the user's own."""
        return ["-F", self.access.config_file] if self.access.config_file else []

    def started(self, pid: int) -> None:
        """Record the process that may ask for the password: a jump host's ssh may not."""
        if self.access.password:
            self.files.write("pid", str(pid))

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
        status, said = run_apart(client, line, CONNECT_SECONDS * 2)
        if status is None:
            raise errors.HostUnreachable(f"{access.host} cannot be reached")
        if not os.path.exists(known):
            raise SshEnding(client).of_connection(said.decode("utf-8", "replace"))
        pinned = text_of(known).split()[1:3]
    except (FileNotFoundError, PermissionError) as error:
        raise errors.AgentFailed(f"{error.filename} cannot be started: {error}") from error
    finally:
        client.files.remove()
    return HostKey(" ".join(pinned), fingerprint(" ".join(pinned)))


def fingerprint(line: str) -> str:
    """Return a public key's `ssh-keygen -l` fingerprint; raises ValueError if it is malformed."""
    import base64
    import hashlib

    try:
        blob = base64.b64decode(line.split()[1], validate=True)
    except IndexError:
        raise ValueError("a host key is a type and a base64 text") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
