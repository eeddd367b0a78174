"""The options that Ketter gives OpenSSH's client, whatever the user's configuration has.

An option on the command line comes before all configuration. Options that older clients do not
know are given only if this machine's client takes them: an unknown one ends ssh.
"""

from __future__ import annotations

import contextlib
import os
import stat
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
    # The lines that `ssh_errors` reads: INFO has the errors, VERBOSE also that the login succeeded.
    "LogLevel": "VERBOSE",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "Tunnel": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "VisualHostKey": "no",
}
#: The version that has it first is in brackets; GSSAPI is there only if it was compiled in, its key
#: exchange only in clients that a distribution has changed (Debian, Fedora).
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
    "GSSAPIKeyExchange": "no",  # Kerberos would vouch for the host: no host key is looked at then.
}


#: Those that a client has only if a distribution has changed it; the others count as usual.
_PATCHED = ("GSSAPIKeyExchange",)
#: Where setpriv may be: not looked up in PATH.
_SETPRIV = ("/usr/bin/setpriv", "/bin/setpriv")
#: SIGTERM for ssh as soon as the process dies that started it.
_WITH_PARENT = "--pdeathsig=TERM"
#: The name of the record of programs that were found right, in the user's cache; its length.
_RECORD, _RECORD_BYTES = "ssh-client", 8192


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
    return [*(_asked()[0] if _client() else ()), "ssh"]


@cache
def _asked() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what ends ssh with this process, and the newer options that ssh takes.

    Asked once a process, in one call or two if both are as usual; not at all if the same programs
    of this machine have been found so before.
    """
    setpriv = next((program for program in _SETPRIV if os.access(program, os.X_OK)), "")
    prefix = (setpriv, _WITH_PARENT) if setpriv else ()
    programs, known = _identity(_client(), setpriv), _found_right()
    plain = tuple(name for name in _NEWER if name not in _PATCHED)
    ways = {"": tuple(_NEWER), " -": plain}
    for mark, names in ways.items():
        if programs and programs + mark == known:
            return prefix, names
    for mark, names in ways.items():
        if _works(prefix, *names):
            _keep(programs + mark if programs else "")
            return prefix, names
    if prefix and not _works(prefix):
        prefix = ()
    return prefix, tuple(name for name in _NEWER if _works((), name))


def _client() -> str:
    """Return the path of the ssh that is first in PATH; empty if there is none."""
    paths = (os.path.join(at, "ssh") for at in os.get_exec_path())
    return next((path for path in paths if os.access(path, os.X_OK)), "")


def _identity(client: str, setpriv: str) -> str:
    """Return what tells these programs, and the options asked for, from any others.

    It is empty if the client is a script: which program that starts is not known.
    """
    words = ["1", *(f"{name}={value}" for name, value in _NEWER.items())]
    try:
        for program in filter(None, (client, setpriv)):
            with open(program, "rb") as file:
                if file.read(2) == b"#!":
                    return ""
                found = os.fstat(file.fileno())
            words += [program, *map(str, (found.st_dev, found.st_ino, found.st_size))]
            words += [str(found.st_mtime_ns), str(found.st_ctime_ns)]
    except OSError:
        return ""  # A program that this user may start but not read: it is asked each time.
    return " ".join(words) if client else ""


def _cache() -> tuple[str, str]:
    """Return the folder for the record of the programs found right, and the one it has to be in.

    Both are empty without one, by the XDG base directory specification.
    """
    base, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "ketter"), base
    return (os.path.join(home, ".cache", "ketter"), home) if os.path.isabs(home) else ("", "")


def _found_right() -> str:
    """Return the identity of the programs on record; empty without a record."""
    how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    path = os.path.join(_cache()[0], _RECORD)
    # Without a record ssh is asked.
    with contextlib.suppress(OSError, ValueError), open(os.open(path, how), "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            return os.fsdecode(file.read(_RECORD_BYTES))
    return ""


def _keep(programs: str) -> None:
    """Put the programs on record; not in another user's home, as under sudo."""
    folder, base = _cache()
    if not folder or not 0 < len(os.fsencode(programs)) <= _RECORD_BYTES:
        return
    path = os.path.join(folder, _RECORD)
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError, ValueError):  # ssh is asked the next time, too.
        if os.stat(base).st_uid != os.geteuid():
            return
        os.makedirs(folder, 0o700, exist_ok=True)
        new = f"{path}.{os.getpid()}"
        fd = os.open(new, how, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(os.fsencode(programs))
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise


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
