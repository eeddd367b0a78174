"""The options that Ketter gives OpenSSH's client, whatever the user's configuration has.

An option on the command line comes before all configuration. Options that older clients do not
know are given only if this machine's client takes them: an unknown one ends ssh.
"""

from __future__ import annotations

import os
import subprocess
from functools import cache

from engine.connect import environment

#: Seconds for the TCP connection and the server's greeting.
CONNECT_SECONDS = 15

#: Every client since OpenSSH 7.0 (2015) takes these.
_OLD = {
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "CheckHostIP": "no",
    # Both would accept another key than the pinned one.
    "VerifyHostKeyDNS": "no",
    "NoHostAuthenticationForLocalhost": "no",
    "ConnectTimeout": str(CONNECT_SECONDS),
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    # The errors that `SshClient.explain` reads.
    "LogLevel": "INFO",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "Tunnel": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "VisualHostKey": "no",
}
#: The version that has it first is in brackets; GSSAPI is there only if it was compiled in.
_NEWER = {
    # Nearly all machines have AES in hardware; at both ends it is twice as fast as the default.
    "Ciphers": "^aes128-gcm@openssh.com",  # [8.0, the caret]
    "AddKeysToAgent": "no",  # [7.2] Other logins do not get the portal's key.
    "RemoteCommand": "none",  # [7.6] It stands in the way of the agent's command.
    "KnownHostsCommand": "none",  # [8.5] It would accept another key than the pinned one.
    "SessionType": "default",  # [8.7]
    "StdinNull": "no",  # [8.7]
    "ForkAfterAuthentication": "no",  # [8.7]
    "GSSAPIDelegateCredentials": "no",
}


#: Where setpriv may be: not looked up in PATH.
_SETPRIV = ("/usr/bin/setpriv", "/bin/setpriv")
#: SIGTERM for ssh as soon as the process dies that started it.
_WITH_PARENT = "--pdeathsig=TERM"


def fixed() -> dict[str, str]:
    """Return the options by name."""
    return {**_OLD, **{name: _NEWER[name] for name in _asked()[1]}}


def command() -> list[str]:
    """Return the words that start ssh.

    On Linux ssh ends when this process dies, however it dies: an ssh to a host that hangs would
    stay. It stays where there is no setpriv with that option (util-linux 2.33): on macOS, and with
    busybox.
    """
    # Without ssh, setpriv would exit with a status, where exec raises an error that names ssh.
    return [*(_asked()[0] if _is_there() else ()), "ssh"]


@cache
def _asked() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what ends ssh with this process, and the newer options that ssh takes.

    Asked once a process, in one call if both are as they should be.
    """
    setpriv = next((program for program in _SETPRIV if os.access(program, os.X_OK)), "")
    prefix = (setpriv, _WITH_PARENT) if setpriv else ()
    if _works(prefix, *_NEWER):
        return prefix, tuple(_NEWER)
    if prefix and not _works(prefix):
        prefix = ()
    return prefix, tuple(name for name in _NEWER if _works((), name))


def _is_there() -> bool:
    """True if ssh is in PATH."""
    return any(os.access(os.path.join(at, "ssh"), os.X_OK) for at in os.get_exec_path())


def _works(prefix: tuple[str, ...], *names: str) -> bool:
    """True if ssh starts with the prefix and takes the options: -G prints what it would use."""
    options = [word for name in names for word in ("-o", f"{name}={_NEWER[name]}")]
    try:
        done = subprocess.run(
            [*prefix, "ssh", "-F", "/dev/null", "-G", *options, "x"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CONNECT_SECONDS,
            check=False,
            env=environment.of_ssh(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False  # The transfer's own ssh fails in the same way, with a sentence.
    return done.returncode == 0
