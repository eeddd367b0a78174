"""The lines of `ssh_config`, and the keys, that this side has, and what becomes of each."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.accounts.outcomes import WORKS, Outcome
from tests.rig.sshd import Sshd, free_port, make_key


class Jump(Sshd):
    """An sshd that other logins go through; `refuses` has it forward nothing."""

    def __init__(self, refuses: bool = False) -> None:
        super().__init__()
        self._more = ["AllowTcpForwarding no"] if refuses else []

    def _write_server_config(self) -> Path:
        path = super()._write_server_config()
        path.write_text("\n".join([path.read_text(), *self._more]))
        return path


class Scene(NamedTuple):
    """The far host, a jump host, another that forwards nothing, and a folder for files."""

    far: Sshd
    jump: Sshd
    closed: Sshd
    folder: Path

    def host(self, name: str, server: Sshd, **options: str) -> str:
        """A `Host` block for a server; options replace the usual lines."""
        lines = {
            "HostName": server.host,
            "Port": str(server.port),
            "User": server.username,
            "IdentityFile": str(server.identity_file),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(server.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            **options,
        }
        return "\n".join(
            [f"Host {name}", *(f"  {key} {value}" for key, value in lines.items() if value)]
        )


class Row(NamedTuple):
    """What the configuration has: lines before all others, or all of it, made by a function."""

    title: str
    lines: str = ""
    make: Callable[[Scene], str] | None = None
    outcome: Outcome = WORKS
    host: str = "far"
    nightly: bool = False

    def config(self, scene: Scene) -> str:
        """The whole configuration; `FOLDER` and `PORT` in the lines are the scene's."""
        if self.make:
            return self.make(scene) + "\n"
        lines = self.lines.replace("FOLDER", str(scene.folder)).replace("PORT", str(scene.far.port))
        return "\n".join(["Host *", f"  {lines}", scene.host("far", scene.far), ""])


def _jump(server: str = "jump", quiet: bool = False, **options: str) -> Callable[[Scene], str]:
    def make(scene: Scene) -> str:
        jump: Sshd = getattr(scene, server)
        told = {"key": str(_stranger(scene)), "none": "/dev/null"}
        more = {name: told.get(value, value) for name, value in options.items()}
        head = ["Host *", "  LogLevel QUIET"] if quiet else []
        return "\n".join(
            [
                scene.host("far", scene.far, ProxyJump="gate"),
                scene.host("gate", jump, **more),
                *head,
            ]
        )

    return make


def _stranger(scene: Scene) -> Path:
    """A key that no server lets in."""
    return make_key(scene.folder / "stranger")


def _passphrase(scene: Scene) -> str:
    key = scene.folder / "locked"
    shutil.copy(scene.far.identity_file, key)
    key.chmod(0o600)
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)]
    subprocess.run(change, check=True, capture_output=True)
    return scene.host("far", scene.far, IdentityFile=str(key))


def _open_key(scene: Scene) -> str:
    key = scene.folder / "open"
    shutil.copy(scene.far.identity_file, key)
    key.chmod(0o644)
    return scene.host("far", scene.far, IdentityFile=str(key))


def _include(scene: Scene) -> str:
    (scene.folder / "more").write_text(scene.host("far", scene.far))
    return f"Include {scene.folder / 'more'}"


def _alias(scene: Scene) -> str:
    return scene.host("studio s nas-*", scene.far)


def _literal(scene: Scene) -> str:
    known = scene.folder / "known6"
    known.write_text(f"[::1]:{scene.far.port} {scene.far.host_key}\n")
    return scene.host("far ::1", scene.far, HostName="", UserKnownHostsFile=str(known))


def _closed_port(scene: Scene) -> str:
    return _jump(Port=str(free_port()))(scene)


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


_FORWARD = "LocalForward 127.0.0.1:PORT 127.0.0.1:9\n  ExitOnForwardFailure yes"
_MASTER = "ControlMaster auto\n  ControlPath FOLDER/%C\n  ControlPersist 60"
_LOCAL = "PermitLocalCommand yes\n  LocalCommand echo local; touch FOLDER/local"

_KEY = "Give the jump host the key, or name the right one for it"
_REFUSED = "jump host gate .*refused the user name or the credential"

ROWS = {
    "quiet": Row("`LogLevel QUIET`", "LogLevel QUIET"),
    "debug": Row("`LogLevel DEBUG3`", "LogLevel DEBUG3"),
    "remote-command": Row("`RemoteCommand`", "RemoteCommand tmux new -A -s main\n  RequestTTY yes"),
    "tty": Row("`RequestTTY force`", "RequestTTY force"),
    "no-session": Row("`SessionType none`", "SessionType none"),
    "subsystem": Row("`SessionType subsystem`", "SessionType subsystem", nightly=True),
    "stdin-null": Row("`StdinNull yes`", "StdinNull yes"),
    "fork": Row("`ForkAfterAuthentication yes`", "ForkAfterAuthentication yes"),
    "master": Row("`ControlMaster auto`, `ControlPersist`", _MASTER),
    "compression": Row("`Compression yes`", "Compression yes"),
    "rekey": Row("`RekeyLimit 1M`", "RekeyLimit 1M"),
    "local-command": Row("`LocalCommand`, `PermitLocalCommand`", _LOCAL),
    "forward": Row("`LocalForward` of a port in use, `ExitOnForwardFailure`", _FORWARD),
    "x11": Row("`ForwardX11`, `ForwardAgent`", "ForwardX11 yes\n  ForwardAgent yes"),
    "visual": Row("`VisualHostKey`", "VisualHostKey yes", nightly=True),
    "match": Row(
        "`Match exec`", make=lambda scene: f"Match exec true\n{scene.host('far', scene.far)}"
    ),
    "include": Row("`Include`", make=_include),
    "canonical": Row("`CanonicalizeHostname`", "CanonicalizeHostname yes"),
    "family": Row("`AddressFamily inet`", "AddressFamily inet"),
    "alias": Row("an alias, a pattern", make=_alias, host="nas-7"),
    "literal": Row("an IPv6 literal, `[::1]`", make=_literal, host="::1"),
    "jump": Row("`ProxyJump`", make=_jump()),
    "jump-quiet": Row("`ProxyJump`, `LogLevel QUIET`", make=_jump(quiet=True), nightly=True),
    "jump-key": Row(
        "`ProxyJump`, and that host refuses the key",
        make=_jump(IdentityFile="key"),
        outcome=Outcome("AUTH_FAILED", _REFUSED, _KEY),
    ),
    "jump-key-quiet": Row(
        "… with `LogLevel QUIET`",
        make=_jump(quiet=True, IdentityFile="key"),
        outcome=Outcome("AUTH_FAILED", _REFUSED, _KEY),
    ),
    "jump-unknown": Row(
        "`ProxyJump`, and that host's key is not known",
        make=_jump(UserKnownHostsFile="none"),
        outcome=Outcome(
            "HOST_KEY_UNKNOWN", "jump host gate .*host key", "Log in to the jump host once by hand"
        ),
    ),
    "jump-forbids": Row(
        "`ProxyJump`, and that host forwards nothing",
        make=_jump("closed"),
        outcome=Outcome(
            "AUTH_FAILED", "jump host gate .*forbids", "Allow it there (`AllowTcpForwarding`)"
        ),
    ),
    "jump-down": Row(
        "`ProxyJump`, and no server runs there",
        make=_closed_port,
        outcome=Outcome("CONNECTION_REFUSED", "jump host gate ", "Start sshd there"),
    ),
    "passphrase": Row(
        "a key with a passphrase, not in ssh-agent",
        make=_passphrase,
        outcome=Outcome("AUTH_FAILED", "passphrase", "Add the key to ssh-agent"),
    ),
    "open-key": Row(
        "a key file that others may read",
        make=_open_key,
        outcome=Outcome("AUTH_FAILED", "others may read", "`chmod 600` the key's file"),
    ),
}
